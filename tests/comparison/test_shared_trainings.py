"""The grid of trainings as a launch of two processes, which share each training, against one process."""

import json
import os
import subprocess
import sys

import processes
import pytest
from patience import PATIENCE
from vithub.comparison.comparing import Comparison

GRID = [
    "fractions=[1.0]", "seeds=[0,1]", 'architectures=["CNN","ViT"]', "epochs=1", "batch_size=40", "image_size=16",
    "hidden_size=32", "layers=1", "train_images=80", "test_images=40",
    "precision=fp32",  # in bf16, which "auto" takes where a processor has it, rounding shows
]  # fmt: skip


def torchrun(_program, arguments):
    """The launcher that users have; `processes.launch` makes the same group without its start-up."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launcher, "-m", "vithub.scripts.command_line", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)


def compare(start, data, folder, *options):
    """`vithub compare --sections data`, started by a function; what it wrote."""
    command = ["compare", "--data", str(data), "--sections", "data", "--output", str(folder), *options]
    for setting in GRID:
        command += ["--grid", setting]
    done = start(f"import pictures\npictures.leave_blank()\n{processes.COMMAND}", command)
    assert done.returncode == 0, done.stderr[-6000:]
    return Comparison.load(folder)


def accuracies(found, contestant):
    return {one.seed: one.value for one in found.sections[0].find("cell accuracy", contestant)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("grids")


@pytest.fixture(scope="module")
def shared(digit_folders, folders):
    return compare(torchrun, digit_folders, folders / "two")


def test_two_processes_share_each_training(digit_folders, folders, shared):
    alone = compare(processes.run, digit_folders, folders / "one")
    assert accuracies(shared, "ViT") == accuracies(alone, "ViT")
    assert set(accuracies(shared, "CNN")) == {0, 1}  # batch norms see half of a batch, so it is another training
    for cell in ("vit-100-seed0", "vit-100-seed1"):
        two, one = (
            json.loads((folders / name / "cells" / cell / "run/metrics.json").read_text()) for name in ("two", "one")
        )
        assert (two["processes"], one["processes"]) == (2, 1)
        losses = [run["history"][-1]["train_loss"] for run in (two, one)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    text, page = ((folders / "two" / name).read_text() for name in ("report.md", "report.html"))
    assert "From scratch" in text
    assert "From scratch" in page
    assert "contestant" not in text  # no models were compared, only trainings


def test_two_processes_go_on_with_what_is_missing(digit_folders, folders, shared):
    cells = folders / "two" / "cells"
    (cells / "vit-100-seed1/cell.json").unlink()
    before = {file: file.stat().st_mtime_ns for file in cells.glob("*/run/model.safetensors")}
    again = compare(processes.launch, digit_folders, folders / "two", "--resume")
    changed = [file for file, time in before.items() if file.stat().st_mtime_ns != time]
    assert [file.parts[-3] for file in changed] == ["vit-100-seed1"]
    assert accuracies(again, "ViT") == accuracies(shared, "ViT")
