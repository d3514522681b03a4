import json
import re
import shutil
import subprocess

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vithub.training.loop.checkpoint_faults import checkpoint_fault, set_aside_damaged
from vithub.training.loop.checkpoints import CheckpointReadError, checkpoints, last_checkpoint, step_of

VALUES = {"training.epochs": 3, "training.batch_size": 140, "training.ema_decay": 0.5, "training.keep_checkpoints": 9}
FILES = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "SHA256SUMS"]


@pytest.fixture(scope="module")
def whole_run(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "whole", VALUES).folder


@pytest.fixture
def copied_run(whole_run, tmp_path):
    return shutil.copytree(whole_run, tmp_path / "run")


def flip(file, place, bit=0):
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)


def test_checkpoints_as_they_are_written_have_no_fault(whole_run):
    assert [checkpoint_fault(path) for path in checkpoints(whole_run / "checkpoints")] == [None] * 3


def test_the_list_of_checksums_is_that_of_the_system(whole_run):
    last = last_checkpoint(whole_run / "checkpoints")
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=last, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    checked = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert {path.name for path in last.iterdir()} - {"SHA256SUMS"} <= checked
    assert {name for name in checked if name.startswith("../best-")}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found_and_its_file_is_named(name, place, bit, whole_run):
    file = last_checkpoint(whole_run / "checkpoints") / name
    before = file.read_bytes()
    flip(file, place, bit)
    try:
        fault = checkpoint_fault(file.parent)
    finally:
        file.write_bytes(before)
    # a flipped digit of a checksum accuses the file that it is of
    assert fault is not None
    assert (str(file) in fault) or name == "SHA256SUMS"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_every_fault_of_a_file_is_told(name, how, copied_run):
    file = last_checkpoint(copied_run / "checkpoints") / name
    if how == "flipped":
        flip(file, 40)
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.unlink()
    newest = last_checkpoint(copied_run / "checkpoints")
    if (name, how) == ("state.json", "missing"):
        assert step_of(newest) == 4  # it counts as one that was never finished
    else:
        assert checkpoint_fault(newest) is not None


def test_resuming_falls_back_to_the_newest_whole_checkpoint_and_says_so(copied_run, whole_run, train, listener):
    folder = copied_run / "checkpoints"
    *_, second, third = checkpoints(folder)
    flip(third / "optimizer.safetensors", 5000)
    told = listener()
    train(copied_run, VALUES, resume=True, reporter=told)
    (line,) = [text for text in told.messages if "damaged" in text]
    assert str(third / "optimizer.safetensors") in line
    assert line.endswith(f"set aside as {third.name}.damaged, and the run goes on from {second.name}")
    assert "resuming from step 4 of 6" in told.messages
    for name in ("model.safetensors", f"checkpoints/{third.name}/optimizer.safetensors"):
        assert (copied_run / name).read_bytes() == (whole_run / name).read_bytes()
    assert not (folder / f"{third.name}.damaged").exists()  # it was made anew


def test_damaged_best_weights_are_made_anew_where_an_older_checkpoint_has_others(copied_run, whole_run, train):
    best = json.loads((last_checkpoint(copied_run / "checkpoints") / "state.json").read_text())["best_file"]
    flip(copied_run / "checkpoints" / best, 9000)
    older = [
        path for path in checkpoints(copied_run / "checkpoints")
        if json.loads((path / "state.json").read_text())["best_file"] != best
    ]  # fmt: skip
    if older:
        train(copied_run, VALUES, resume=True)
        assert (copied_run / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()
    else:
        with pytest.raises(CheckpointReadError, match=re.escape(best)):
            train(copied_run, VALUES, resume=True)


def test_where_no_checkpoint_is_whole_nothing_is_touched_and_each_file_is_named(copied_run, train):
    folder = copied_run / "checkpoints"
    for path in checkpoints(folder):
        flip(path / "model.safetensors", 3000)
    before = sorted(folder.iterdir())
    with pytest.raises(CheckpointReadError, match="none of the checkpoints can be resumed") as caught:
        train(copied_run, VALUES, resume=True)
    assert all(str(path / "model.safetensors") in str(caught.value) for path in checkpoints(folder))
    assert sorted(folder.iterdir()) == before


def old(checkpoint):
    """Makes a checkpoint what version 0.1 wrote: without checksums, and with the best weights under one name."""
    (checkpoint / "SHA256SUMS").unlink()
    state = json.loads((checkpoint / "state.json").read_text())
    shutil.copy(checkpoint.parent / state["best_file"], checkpoint.parent / "best.safetensors")
    for name in ("format", "best_file", "timing", "loss_steps", "changes", "recipe"):
        del state[name]
    (checkpoint / "state.json").write_text(json.dumps(state))


def test_checkpoints_of_version_0_1_are_resumed(copied_run, whole_run, train):
    folder = copied_run / "checkpoints"
    first, *later = checkpoints(folder)
    for path in later:
        shutil.rmtree(path)
    old(first)
    assert checkpoint_fault(first) is None
    train(copied_run, VALUES, resume=True)
    assert (copied_run / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("optimizer.safetensors", lambda t: dict(list(t.items())[1:]), r"optimizer\.safetensors: .* lacks"),
        ("optimizer.safetensors", lambda t: t | {"head|exp_avg": torch.ones(2)}, r"'head\|exp_avg' belongs to no"),
        ("optimizer.safetensors", lambda t: t | {next(iter(t)): torch.ones(7)}, r"has shape \[7\]"),
        ("model.safetensors", lambda t: dict(list(t.items())[1:]), r"model\.safetensors holds other tensors"),
        ("model.safetensors", lambda t: t | {next(iter(t)): torch.ones(7)}, r"model\.safetensors holds other tensors"),
    ],
)
def test_other_tensors_in_a_checkpoint_without_checksums_are_named(file, change, message, copied_run, train):
    last = last_checkpoint(copied_run / "checkpoints")
    old(last)
    safetensors.torch.save_file(change(safetensors.torch.load_file(last / file)), last / file, {"format": "pt"})
    with pytest.raises(CheckpointReadError, match=message):
        train(copied_run, VALUES, resume=True)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": "6"}', "null", "NaN", '{"step": 1e999}', "\x00"])
def test_state_of_any_form_is_a_fault(content, copied_run):
    last = last_checkpoint(copied_run / "checkpoints")
    old(last)
    (last / "state.json").write_text(content)
    assert str(last / "state.json") in checkpoint_fault(last)
    (line,) = set_aside_damaged(copied_run / "checkpoints", best=True)
    assert "goes on from step-00000004" in line
