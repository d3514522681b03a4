import json
import random
import signal

import processes
import pytest
from patience import LONG
from tiny_detectors import FIELDS, tiny_detector, tiny_processor
from vithub.training.loop.checkpoints import checkpoints

import vithub

# Every kind of state that a run has: an average of weights, mixing, checkpoints within an epoch, a loading process.
VALUES = {
    "data.workers": 1,
    "augmentation.mixup": 0.8,
    "augmentation.random_erasing": 0.25,
    "training.epochs": 8,
    "training.checkpoint_steps": 3,
    "training.ema_decay": 0.9,
    "training.precision": "fp32",
}

# Also dropout, noise of denoising queries, and augmentation of boxes, each drawn for its sample.
DETECTOR = {
    "data.workers": 1,
    "boxes.crop": 0.5,
    "training.epochs": 6,
    "training.checkpoint_steps": 2,
    "training.ema_decay": 0.9,
    "model.fields.dropout": 0.1,
    "model.fields.attention_dropout": 0.1,
    "model.fields.activation_dropout": 0.1,
}

# The average of the weights, several scales, and denoising groups where the model has them.
FOREIGN = {
    "data.workers": 0,
    "data.validation_fraction": 0.25,
    "data.test_fraction": 0.25,
    "training.epochs": 6 if LONG else 1,
    "training.batch_size": 2,
    "training.warmup": 0,
    "training.checkpoint_steps": 1,
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.batch_size": 2,
}

# It computes nothing itself, so that its children can be forked; each goes on with the run until it is killed.
KEEPER = """
import json, os, signal, sys
from pathlib import Path
import pictures
import torch
from vithub.training.finetuning import finetune
from vithub.training.recipe.presets import preset
from vithub.training.runtime.progress import QuietReporter
from vithub.training.recipe.recipe import Recipe

pictures.leave_blank()
torch.set_num_threads(1)
data, out, preset_name, values, deaths = json.loads(sys.argv[1])
recipe = preset(preset_name) if preset_name else Recipe()
write_to_disk = os.fsync

class Countdown(QuietReporter):
    def __init__(self, events):
        self.events = events

    def count(self):
        self.events -= 1
        if self.events == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def advance(self, amount=1, **figures):  # a step, or a batch of an evaluation
        self.count()

    def fsync(self, descriptor):  # a file of a checkpoint
        write_to_disk(descriptor)
        self.count()

for death in deaths:
    child = os.fork()
    if child == 0:
        reporter = Countdown(death)
        os.fsync = reporter.fsync
        finetune(data=data, output=out, recipe=recipe, values=values, reporter=reporter,
                 resume=(Path(out) / "recipe.yaml").exists())
        os._exit(0)
    print(os.waitpid(child, 0)[1], sorted(os.listdir(Path(out) / "checkpoints")), flush=True)
"""


@pytest.fixture
def keep(tmp_path):
    """Runs a training in processes that are killed after so many events each; returns how they ended."""

    def run(data, out, values, deaths, preset_name=None):
        task = json.dumps([str(data), str(out), preset_name, values, deaths])
        kept = processes.run(KEEPER, [task], cwd=tmp_path)
        assert kept.returncode == 0, kept.stderr
        return [int(line.split()[0]) for line in kept.stdout.splitlines()]

    return run


def test_a_run_killed_again_and_again_ends_equal_to_the_unbroken(keep, train, digit_folders, quick, tmp_path):
    draws, kills = random.Random(0), 20 if LONG else 10
    deaths = [draws.randint(1, 24) for _ in range(kills)]
    endings = keep(digit_folders, tmp_path / "killed", quick(VALUES), [*deaths, 0])
    assert endings == [signal.SIGKILL] * kills + [0]
    assert_equal(tmp_path / "killed", train(tmp_path / "whole", VALUES))


def test_a_detectors_run_killed_again_and_again_ends_equal_to_the_unbroken(
    keep, detector_data, quick_detector, tmp_path
):
    detector_data.to_parquet(tmp_path / "squares.parquet")
    values = quick_detector(DETECTOR)
    draws, kills = random.Random(1), 10 if LONG else 6
    deaths = [draws.randint(1, 14) for _ in range(kills)]
    endings = keep(tmp_path / "squares.parquet", tmp_path / "killed", values, [*deaths, 0], "detr-small-data")
    assert endings == [signal.SIGKILL] * kills + [0]
    whole = vithub.finetune(
        data=tmp_path / "squares.parquet", output=tmp_path / "whole", preset="detr-small-data", values=values
    )
    assert whole.model.config.denoising_queries
    assert_equal(tmp_path / "killed", whole)


@pytest.mark.parametrize("model_type", FIELDS if LONG else ("d_fine", "yolos"))
def test_a_foreign_detectors_run_killed_again_and_again_ends_equal_to_the_unbroken(
    keep, model_type, detector_data, tmp_path
):
    data, start = tmp_path / "squares.parquet", tmp_path / "start"
    detector_data.select(range(8)).to_parquet(data)
    tiny_detector(model_type).save_pretrained(start)
    tiny_processor(model_type).save_pretrained(start)
    # Each life makes at least a step and its checkpoint of several files, or is lost in them: both are wanted.
    draws, kills = random.Random(model_type), 10 if LONG else 1
    deaths = [draws.randint(2, 16) for _ in range(kills)]
    values = FOREIGN | {"model.source": str(start), "model.convert": False}
    endings = keep(data, tmp_path / "killed", values, [*deaths, 0], "detr-pretrained")
    assert endings == [signal.SIGKILL] * kills + [0]
    whole = vithub.finetune(data=data, output=tmp_path / "whole", preset="detr-pretrained", values=values)
    assert type(whole.model).__module__.startswith("transformers.")
    assert_equal(tmp_path / "killed", whole)


def assert_equal(killed, whole):
    """That two runs left the same weights, figures and states to the bit."""
    assert (killed / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    figures = json.loads((killed / "metrics.json").read_text())
    assert figures["test"] == whole.metrics["test"]
    losses = [[entry["train_loss"] for entry in history] for history in (figures["history"], whole.metrics["history"])]
    assert losses[0] == losses[1]
    last, same = (checkpoints(folder / "checkpoints")[-1] for folder in (killed, whole.folder))
    assert last.name == same.name
    for file in same.glob("*.safetensors"):  # the optimizer's state too
        assert (last / file.name).read_bytes() == file.read_bytes()
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.folder.iterdir()}
    assert not list(killed.rglob(".step-*"))
