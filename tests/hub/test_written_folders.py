"""Folders that are written whole: what killed and failing writers leave, and what a full disk is told as."""

import contextlib
import os
import resource
import signal

import pytest
import safetensors.torch
import torch
from vithub.hub import folders
from vithub.hub.folders import TargetError, new_folder, staged_files, write_errors


def held(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def killed_within(target, overwrite=False):
    """A process that is killed while it writes a folder."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), new_folder(target, overwrite) as staging:
            (staging / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@contextlib.contextmanager
def small_files():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    killed_within(tmp_path / "out")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out-")
    with new_folder(tmp_path / "out") as staging:
        (staging / "whole").write_text("whole")
    assert held(tmp_path) == {"out/whole": "whole"}


def test_folders_of_writers_that_live_and_of_others_stay(tmp_path):
    (tmp_path / ".out-1").mkdir()
    (tmp_path / ".other-0123abcd").mkdir()
    # the first to be complete is kept where the other may not overwrite it
    with pytest.raises(TargetError, match="holds files already"), new_folder(tmp_path / "out") as first:  # noqa: PT012
        with new_folder(tmp_path / "out") as second:
            (second / "whole").write_text("second")
        (first / "whole").write_text("first")
    assert {path.name for path in tmp_path.iterdir()} == {".out-1", ".other-0123abcd", "out"}
    assert held(tmp_path) == {"out/whole": "second"}


def test_a_killed_writer_leaves_the_earlier_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "whole").write_text("earlier")
    killed_within(tmp_path / "out", overwrite=True)
    assert held(tmp_path / "out") == {"whole": "earlier"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_earlier_folder_is_replaced_with_and_without_an_exchange(exchanges, tmp_path, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for content in ("first", "second"):
        with new_folder(tmp_path / "out", overwrite=True) as staging:
            (staging / content).write_text(content)
    assert held(tmp_path) == {"out/second": "second"}


def test_a_folder_that_was_moved_when_its_writer_was_killed_is_put_back(tmp_path):
    (tmp_path / ".out-0123abcd-old").mkdir()
    (tmp_path / ".out-0123abcd-old" / "whole").write_text("earlier")
    with pytest.raises(TargetError, match="holds files already"), new_folder(tmp_path / "out"):
        pass
    assert held(tmp_path) == {"out/whole": "earlier"}


def test_a_full_disk_is_told_with_the_target_and_not_with_the_temporary_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "whole").write_text("earlier")
    expected = rf"^cannot write {tmp_path / 'out'}: .*File too large"
    with small_files(), pytest.raises(TargetError, match=expected), new_folder(tmp_path / "out", True) as staging:
        safetensors.torch.save_file({"a": torch.zeros(1000)}, staging / "model.safetensors")
    with small_files(), pytest.raises(TargetError, match=expected), new_folder(tmp_path / "out", True) as staging:
        (staging / "a").write_bytes(bytes(5000))
    assert held(tmp_path) == {"out/whole": "earlier"}


def test_errors_of_files_elsewhere_and_of_other_kinds_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"), new_folder(tmp_path / "out"):
        (tmp_path / "none").read_text()
    (tmp_path / "damaged.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(safetensors.SafetensorError), write_errors(tmp_path / "out"):
        safetensors.torch.load_file(tmp_path / "damaged.safetensors")
    assert not (tmp_path / "out").exists()


def test_staged_files_replace_all_or_none(tmp_path):
    (tmp_path / "a").write_text("earlier")
    (tmp_path / "kept").write_text("kept")
    full = f"cannot write {tmp_path}: File too large"
    with small_files(), pytest.raises(TargetError, match=full), staged_files(tmp_path, last="b") as staging:  # noqa: PT012
        (staging / "a").write_text("new")
        (staging / "b").write_bytes(bytes(5000))
    assert held(tmp_path) == {"a": "earlier", "kept": "kept"}
    with staged_files(tmp_path, last="b") as staging:
        for name in ("a", "b", "pictures/c"):
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).write_text("new")
    assert held(tmp_path) == {"a": "new", "b": "new", "pictures/c": "new", "kept": "kept"}
