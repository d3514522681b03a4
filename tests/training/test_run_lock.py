import errno
import json
import os
import signal
import subprocess
import sys

import processes
import pytest
from vithub.hub.folders import TargetError
from vithub.training.dataset_prediction import predict_dataset
from vithub.training.finetuning import finetune
from vithub.training.recipe.recipe import Recipe
from vithub.training.recipe.run_files import RECIPE
from vithub.training.run_folder import open_run_folder
from vithub.training.run_lock import LOCK, RunLock
from vithub.training.runtime.loading_processes import LoadingProcessError

# Holds a run's folder, with a child that outlives it, until it is killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from vithub.training.run_lock import RunLock

with RunLock(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    time.sleep(600)
"""

# A training whose loading process gets a signal once it has given an image.
VICTIM = """
import json, os, signal, sys
import pictures
import torch
from vithub.data.labelled import dataset
from vithub.scripts.command_line import app, run

pictures.leave_blank()
torch.set_num_threads(1)
name, arguments = json.loads(sys.argv[1])
main, sample = os.getpid(), dataset.LabelledImages.__getitem__

def struck(self, key):
    if os.getpid() != main and getattr(key, "epoch", 0) == 1:
        os.kill(os.getpid(), getattr(signal, name))
    return sample(self, key)

dataset.LabelledImages.__getitem__ = struck
sys.exit(run(lambda: app(arguments)))
"""


def test_a_folder_is_held_until_its_process_dies_and_not_by_its_children(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(TargetError, match=f"being trained in by process {holder.pid} on "), RunLock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it lives
        with RunLock(tmp_path):
            assert (tmp_path / LOCK).is_file()
        assert not list(tmp_path.iterdir())
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_process_does_not_train_twice_in_one_folder(tmp_path, train):
    with RunLock(tmp_path), pytest.raises(TargetError, match="by this process already"):
        train(tmp_path)
    with RunLock(tmp_path):
        pass


def test_a_run_that_is_being_trained_is_not_resumed(finished_run):
    before = {file: file.stat().st_mtime_ns for file in finished_run.folder.rglob("*") if file.is_file()}
    with RunLock(finished_run.folder), pytest.raises(TargetError, match="is being trained in"):
        finetune(output=finished_run.folder, resume=True)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_prediction_that_is_being_written_is_not_resumed_and_a_killed_start_is_begun_anew(
    finished_run, digit_folders, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    with RunLock(out, "written"), pytest.raises(TargetError, match="is being written by this process already"):
        predict_dataset(finished_run.folder, digit_folders, out, workers=0, resume=True)
    for name in (LOCK, ".about.json.new"):  # as a kill at the very beginning leaves them
        (out / name).write_text("{")
    predict_dataset(finished_run.folder, digit_folders, out, workers=0)
    assert {path.name for path in out.iterdir()} == {"about.json", "part-000000.parquet"}


def test_a_run_killed_before_its_recipe_was_there_is_begun_anew(tmp_path):
    for name in (LOCK, f".{RECIPE}.new"):
        (tmp_path / name).write_text("x")
    with open_run_folder(tmp_path, Recipe(), resume=False):
        assert {path.name for path in tmp_path.iterdir()} == {LOCK, RECIPE}
    assert {path.name for path in tmp_path.iterdir()} == {RECIPE}


def test_a_lock_without_room_for_its_content_is_not_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TargetError, match=f"cannot write {tmp_path}: No space left"), RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_in_a_folder_that_has_become_read_only_is_given_back(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched, RunLock(tmp_path):
        patched.setattr(os, "unlink", refused)
    with RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def finetuned(name, digit_folders, values, folder):
    options = [text for key, value in values.items() for text in ("--set", f"{key}={json.dumps(value)}")]
    arguments = ["finetune", "--preset", "from-scratch-small", "--data", str(digit_folders), "--output", str(folder)]
    return processes.run(VICTIM, [json.dumps([name, [*arguments, *options]])])


def test_a_killed_loading_process_is_one_line_and_the_run_goes_on_from_its_checkpoint(digit_folders, quick, tmp_path):
    plain = {"augmentation.rand_augment": None, "augmentation.random_erasing": 0.0, "data.workers": 1}
    values = quick(plain | {"training.batch_size": 280})
    done = finetuned("SIGKILL", digit_folders, values, tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("vithub: error: a loading process died")
    assert "--set data.workers=1" in line
    assert f"--resume goes on with {tmp_path / 'run'}" in line
    resumed = finetune(output=tmp_path / "run", resume=True, values={"data.workers": 0})
    whole = finetune(output=tmp_path / "whole", recipe=tmp_path / "run" / "recipe.yaml")
    assert resumed.metrics["test"] == whole.metrics["test"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_whole_group_does_not_end_the_loading_processes(name, digit_folders, quick, tmp_path):
    plain = {"augmentation.rand_augment": None, "augmentation.random_erasing": 0.0, "data.workers": 1}
    done = finetuned(name, digit_folders, quick(plain | {"training.batch_size": 280}), tmp_path / "run")
    expected = 0 if name == "SIGINT" else 1  # a second SIGTERM, with the next image, is meant for the process itself
    assert done.returncode == expected, done.stderr


def test_errors_of_others_stay_as_they_are():
    from vithub.training.runtime.loading_processes import named_deaths

    with pytest.raises(RuntimeError, match="another") as caught, named_deaths():
        raise RuntimeError("another error")
    assert type(caught.value) is RuntimeError
    with pytest.raises(LoadingProcessError, match=r"a loading process died \(pid 12\) is killed"), named_deaths():
        raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
