import errno
import os
import resource
import shutil

import pytest
import torch
from safetensors import safe_open
from vithub.hub.folders import TargetError
from vithub.training.loop.checkpoints import CheckpointWriteError, checkpoints, last_checkpoint

# Two steps an epoch, so that every epoch leaves a checkpoint soon.
THREE_EPOCHS = {"training.epochs": 3, "training.batch_size": 140}


@pytest.fixture(scope="module")
def train(train):
    def run(out, values=None, **options):
        return train(out, THREE_EPOCHS | (values or {}), **options)

    return run


@pytest.fixture(scope="module")
def whole_run(train, tmp_path_factory):
    """An unbroken run that keeps all its checkpoints."""
    return train(tmp_path_factory.mktemp("runs") / "whole", {"training.keep_checkpoints": 9}).folder


@pytest.fixture
def copied_run(whole_run, tmp_path):
    return shutil.copytree(whole_run, tmp_path / "run")


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def resume(folder, train):
    return train(folder, {"training.keep_checkpoints": 9}, resume=True).folder


def steps(folder):
    return [int(path.name.removeprefix("step-")) for path in checkpoints(folder / "checkpoints")]


def test_every_epoch_leaves_a_checkpoint_that_holds_no_pickle(whole_run):
    assert steps(whole_run) == [2, 4, 6]
    kinds = {file.suffix for file in (whole_run / "checkpoints").rglob("*") if file.is_file()}
    assert kinds == {".safetensors", ".json", ""}  # the last is SHA256SUMS
    for path in checkpoints(whole_run / "checkpoints"):
        with safe_open(path / "model.safetensors", "pt") as stored:
            assert all(torch.isfinite(stored.get_tensor(name)).all() for name in stored.keys())  # noqa: SIM118


def test_only_the_last_checkpoints_are_kept(train, tmp_path):
    train(tmp_path / "run", {"training.keep_checkpoints": 2})
    assert steps(tmp_path / "run") == [4, 6]


@pytest.mark.parametrize("left", [0, 2], ids="first {} checkpoints left".format)
def test_going_on_from_any_checkpoint_gives_the_same_weights(left, copied_run, whole_run, train):
    for path in checkpoints(copied_run / "checkpoints")[left:]:
        shutil.rmtree(path)
    (copied_run / "model.safetensors").unlink()
    assert weights(resume(copied_run, train)) == weights(whole_run)


def test_half_written_checkpoints_are_never_resumed_from(copied_run, whole_run, train):
    folder = copied_run / "checkpoints"
    first, second, third = checkpoints(folder)
    third.rename(folder / f".{third.name}")  # as it is while it is written
    (second / "state.json").unlink()  # as one that an unclean shutdown cut short
    (folder / "step-00000099").mkdir()
    assert last_checkpoint(folder) == first
    assert weights(resume(copied_run, train)) == weights(whole_run)


def test_a_resumed_run_clears_what_a_killed_one_left_half_written(copied_run, train):
    folder = copied_run / "checkpoints"
    third = checkpoints(folder)[-1]
    third.rename(folder / f".{third.name}")
    resume(copied_run, train)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_no_checkpoints_are_no_error(tmp_path):
    assert checkpoints(tmp_path / "none") == []
    assert last_checkpoint(tmp_path / "none") is None


def failing_after(calls):
    """`os.fsync` on a disk that is full after some calls."""
    real, count = os.fsync, 0

    def fsync(descriptor):
        nonlocal count
        count += 1
        if count > calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    return fsync


def test_a_disk_that_is_full_from_the_beginning_is_named_and_nothing_is_left(train, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing_after(0))
    with pytest.raises(TargetError, match=r"cannot write .*run: No space left on device"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("calls", [1, 2, 5, 7, 9], ids="{} files written".format)  # the first is the recipe
def test_a_full_disk_leaves_the_last_good_checkpoint_and_names_it(calls, train, whole_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_after(calls))
        with pytest.raises(CheckpointWriteError, match="No space left on device") as caught:
            train(folder, {"training.keep_checkpoints": 9})
    last = last_checkpoint(folder / "checkpoints")
    if last is None:
        assert "the last good" in str(caught.value)
        assert str(caught.value).endswith("none")
    else:
        assert str(caught.value).endswith(str(last))
        same = whole_run / "checkpoints" / last.name
        for file in sorted(same.glob("*.safetensors")):
            assert (last / file.name).read_bytes() == file.read_bytes()


def test_a_file_that_becomes_too_large_is_the_same(train, whole_run, tmp_path):
    # the model, of 113 kB, fits below this limit; AdamW's two moments of it do not
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (160_000, limits[1]))
    try:
        with pytest.raises(CheckpointWriteError, match=r"step 2 .*File too large.*none"):
            train(tmp_path / "run", {"training.keep_checkpoints": 9})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps(tmp_path / "run") == []
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert weights(resume(tmp_path / "run", train)) == weights(whole_run)
