import json
import random
import signal
import subprocess
import sys

import pytest
from vithub.training.run_checkpoints import checkpoints

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

# It computes nothing itself, so that its children can be forked; each goes on with the run until it is killed.
KEEPER = """
import json, os, signal, sys
from pathlib import Path
import torch
from vithub.training.finetuning import finetune
from vithub.training.progress import QuietReporter
from vithub.training.recipe import Recipe

torch.set_num_threads(1)
data, out, values, deaths = json.loads(sys.argv[1])
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
        finetune(data=data, out=out, recipe=Recipe(), values=values, reporter=reporter,
                 resume=(Path(out) / "recipe.yaml").exists())
        os._exit(0)
    print(os.waitpid(child, 0)[1], sorted(os.listdir(Path(out) / "checkpoints")), flush=True)
"""


@pytest.fixture
def keep(tmp_path, digit_folders, quick):
    """Runs a training in processes that are killed after so many events each; returns how they ended."""

    def run(out, deaths):
        task = json.dumps([str(digit_folders), str(out), quick(VALUES), deaths])
        kept = subprocess.run(
            [sys.executable, "-c", KEEPER, task], capture_output=True, text=True, timeout=600, cwd=tmp_path, check=True
        )
        return [int(line.split()[0]) for line in kept.stdout.splitlines()]

    return run


def test_a_run_killed_twenty_times_ends_equal_to_the_unbroken_one(keep, train, tmp_path):
    draws = random.Random(0)
    deaths = [draws.randint(1, 24) for _ in range(20)]
    endings = keep(tmp_path / "killed", [*deaths, 0])
    assert endings == [signal.SIGKILL] * 20 + [0]
    whole = train(tmp_path / "whole", VALUES)
    killed = tmp_path / "killed"
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
