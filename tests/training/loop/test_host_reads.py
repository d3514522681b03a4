"""The host reads nothing of what the device computes between the loading of a step and its optimizer.

Whoever reads waits until the device has finished all its work. What reads is seen on every machine: by the operations
that a step calls, and by steps whose tensors lie on torch's device "meta", which has no values to read.
"""

import sys
import warnings
from collections import Counter

import pytest
import torch
from accelerate.utils import send_to_device
from torch.utils._python_dispatch import TorchDispatchMode
from vithub.data.digits import digits_dataset
from vithub.data.image_processing import PixelFormat
from vithub.modeling import detr_loss
from vithub.modeling.detr_matcher import Matches, matching_costs
from vithub.training.loop.accelerate_loop import AccelerateLoop
from vithub.training.loop.interruption import StopRequest
from vithub.training.loop.step import StepEnd
from vithub.training.recipe.presets import preset
from vithub.training.recipe.recipe import Recipe
from vithub.training.runtime.progress import QuietReporter
from vithub.training.tasks.classification.teachers import Teacher
from vithub.training.tasks.registry import build_task

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.is_nonzero.default,
    aten._unique2.default, aten.equal.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# The Hungarian assignment is computed on the host: its costs are copied to it once a step and part.
ALLOWED = "match_queries"

MIXED = {"augmentation.mixup": 0.8, "augmentation.cutmix": 1.0, "model.fields": {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1,
    "drop_path_rate": 0.3}}  # fmt: skip
DROPPED = {"model.fields": MIXED["model.fields"] | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}}
SHORT = {"training.batch_size": 4}  # so that an epoch has more than the three steps
PLAIN = {f"model.fields.{name}": value for name, value in {
    "anchor_queries": False, "denoising_queries": 0, "focal_loss": False, "dropout": 0.1, "attention_dropout": 0.1,
}.items()}  # fmt: skip


class HostReads(TorchDispatchMode):
    """Counts the operations that make the host wait, by the function of this package that called them."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func in INDEXED and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        if func in READS or masks:
            self.found[caller() or str(func)] += 1
        return func(*args, **(kwargs or {}))


def caller():
    frame = sys._getframe(2)
    while frame is not None:
        place, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if place.startswith(("vithub.training", "vithub.modeling", "vithub.data")) and name != "__torch_function__":
            return name
        frame = frame.f_back
    return None


@pytest.fixture(scope="module")
def digits():
    return digits_dataset().select(range(120))


@pytest.fixture
def task_of(digits, quick, detector_data, quick_detector):
    def make(kind):
        if kind in ("mixed", "taught", "dropout"):
            more = {"mixed": MIXED, "taught": MIXED | {"distillation.teacher": "a module"}, "dropout": DROPPED}[kind]
            recipe = Recipe().with_values(quick(more | {"training.clip_norm": 1.0, "training.ema_decay": 0.9}))
            return build_task(recipe, digits, teacher=teacher() if kind == "taught" else None)
        recipe = preset("detr" if kind == "plain detr" else "detr-small-data")
        return build_task(
            recipe.with_values(quick_detector(SHORT | (PLAIN if kind == "plain detr" else {}))), detector_data
        )

    return make


def teacher():
    """A teacher with another normalisation, size and order of the classes than the student."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Flatten(), torch.nn.Linear(64, 12))
    ours = PixelFormat((12, 12), (0.5,) * 3, (0.5,) * 3)
    return Teacher(model, ours, list(range(10))[::-1], PixelFormat((16, 16), (0.4,) * 3, (0.2,) * 3), bf16=True)


KINDS = ["mixed", "taught", "dropout", "plain detr", "small-data detr"]


def steps(task, folder, watch):
    """Makes three steps of the Accelerate loop; `watch` is a context around the last two, after their loading."""
    loop = AccelerateLoop(task, folder, QuietReporter())
    loader = iter(task.train_loader())
    with StopRequest() as request:
        end = StepEnd(task, loop.record, loop.accelerator, QuietReporter(), request)
        end.begin_epoch(0, 0, 3)
        loop.model.train()
        for step in range(3):
            batch = next(loader)
            task.prepare_step([batch])
            end.add_piece(batch)
            if step == 0:  # makes the optimizer's state and whatever else is made once
                loop._compute([batch], step, end)
                continue
            with watch:
                loop._compute([batch], step, end)
    return loop


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_calls_nothing_that_waits_for_the_device(task_of, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(StepEnd, "runs_ahead", staticmethod(lambda device: True))
    reads = HostReads()
    loop = steps(task_of(kind), tmp_path, reads)
    assert len(loop.record.losses) == 2  # the last one is not read yet
    allowed = {ALLOWED: 2} if "detr" in kind else {}
    assert reads.found == allowed  # the costs' check on the host, once a step


@pytest.mark.parametrize("kind", ["mixed", "dropout", "plain detr", "small-data detr"])
def test_a_step_can_be_computed_on_a_device_that_has_no_values(task_of, monkeypatch, kind):
    task, transfers = task_of(kind), []

    def matched(logits, boxes, targets, config):  # in place of the one copy to the host and what is computed there
        transfers.append(matching_costs(logits, boxes, targets, config))
        layers, count = len(logits), sum(targets.counts)
        return Matches(*torch.zeros(4, layers * count, dtype=torch.int64, device=logits.device).unbind())

    monkeypatch.setattr(detr_loss, "match_queries", matched)
    batch = next(iter(task.train_loader()))
    task.prepare_step([batch])
    task.model.to("meta").train()
    loss = task.loss(task.model, send_to_device(batch, torch.device("meta"), non_blocking=True))
    loss.backward()
    assert loss.device.type == "meta"
    learned = [p for p in task.model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learned)
    assert len(transfers) == ("detr" in kind)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_is_not_waited_for(task_of, tmp_path, kind):
    class Watch:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("warn")

        def __exit__(self, *error):
            torch.cuda.set_sync_debug_mode("default")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        steps(task_of(kind), tmp_path, Watch())
    waits = [str(one.message) for one in told if "synchronizing CUDA operation" in str(one.message)]
    assert len(waits) == (2 if "detr" in kind else 0), waits
