"""What depends on the device that is used, not on one that exists."""

import pytest
import torch
from vithub.training.finetuning import finetune
from vithub.training.loop.training_state import peak_memory_mb
from vithub.training.recipe.recipe import Recipe
from vithub.training.runtime.environment import hardware
from vithub.training.runtime.processes import new_accelerator, on_cuda, process_state
from vithub.training.tasks.classification.evaluation import LabelEvaluator
from vithub.training.tasks.train_batches import TableBatches, table_order

import vithub


@pytest.fixture
def unused_gpus(monkeypatch):
    """Two GPUs that exist, as torch tells of them; the run is asked to compute on the CPU."""
    process_state()  # made once for all runs of a process, hence before GPUs are pretended
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def test_a_gpu_that_exists_but_is_not_used_counts_for_nothing(unused_gpus):
    assert not on_cuda()
    assert peak_memory_mb(torch.device("cpu")) > 100  # of the process, in which torch itself takes that much
    assert "2 x" not in hardware("cpu")
    recipe = Recipe().with_values({"training.batch_size": 1})
    batches = TableBatches(recipe, lambda: [{}], table_order(recipe, [{}], 1), 0, list)
    assert not batches.loader(0, 1, 0, 1).pin_memory


def test_several_gpus_without_a_launcher_are_refused_by_the_trainer(unused_gpus, monkeypatch, tmp_path):
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"sees 2: begin it with `accelerate launch --num_processes 2`"):
        finetune(data="digits", output=tmp_path / "run", front_end="trainer")
    assert not (tmp_path / "run").exists()


def test_evaluation_pins_memory_only_for_a_model_on_cuda(unused_gpus, tiny):
    evaluator = LabelEvaluator(vithub.HubViTForImageClassification(tiny()), _Images(), 5)
    assert not evaluator.loader([([0], 1)], 0).pin_memory


class _Images:
    name = "test"

    def __len__(self):
        return 1

    def __getitem__(self, row):
        return {}


def test_a_run_after_one_that_failed_within_a_step_makes_its_steps():
    failed = new_accelerator()
    failed.sync_gradients = False  # as between two parts of a batch
    accelerator = new_accelerator()
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = accelerator.prepare(torch.optim.SGD([parameter], lr=1.0))
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.item() == 0
