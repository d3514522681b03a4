"""Temporary folder of the demo page for uploads and results; old files are deleted, and the folder at the end."""

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_PREFIX = "vithub-page-"
# Environment variable from which gradio takes its file folder, when components are built and when a page is served.
_VARIABLE = "GRADIO_TEMP_DIR"


class PageFiles:
    """Private folder of this process for the files of a page.

    Args:
        kept_seconds: Maximum age of a file in seconds.
        parent: Folder in which it is made; None uses the system's folder for temporary files.
    """

    def __init__(self, kept_seconds: float, parent: str | Path | None = None) -> None:
        self.kept_seconds = kept_seconds
        remove_left_over(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)).resolve()
        self._process, self._ended = os.getpid(), threading.Event()
        atexit.register(self.remove)

    def watch(self, always: Collection[str] = ()) -> None:
        """Starts a thread that deletes files before they exceed the maximum age.

        Args:
            always: Files to keep regardless of age, such as examples.
        """
        period = min(30.0, self.kept_seconds / 4)

        def delete() -> None:
            while not self._ended.wait(period):
                self.delete_old(self.kept_seconds - period, always)

        threading.Thread(target=delete, name="vithub-page-files", daemon=True).start()

    def delete_old(self, seconds: float, always: Collection[str] = ()) -> None:
        """Deletes old files and old empty folders.

        Args:
            seconds: Age since the last modification from which they are deleted.
            always: Files to keep regardless of age.
        """
        stay, oldest = {os.path.realpath(file) for file in always}, time.time() - seconds
        for place, _, names in os.walk(self.folder, topdown=False):
            for name in names:
                file = Path(place, name)
                with suppress(OSError):  # the file was deleted, or is being written
                    if os.path.realpath(file) not in stay and file.lstat().st_mtime < oldest:
                        file.unlink()
            if Path(place) != self.folder:
                with suppress(OSError):  # the folder is not empty
                    if Path(place).lstat().st_mtime < oldest:
                        Path(place).rmdir()

    def remove(self) -> None:
        """Removes the folder and its content."""
        if os.getpid() != self._process:  # a forked process must not delete its parent's files
            return
        self._ended.set()
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_left_over(parent: str | Path | None = None) -> None:
    """Removes folders left over by processes that were killed."""
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = folder.name.removeprefix(_PREFIX).split("-")[0]
        if not number.isdecimal() or folder.is_symlink() or _runs(int(number)):
            continue
        with suppress(OSError):
            if not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


_of_this_process: dict[int, PageFiles] = {}


def page_files(kept_seconds: float) -> PageFiles:
    """Folder for the pages of this process, made at the first call; gradio keeps its files there from now on."""
    process = os.getpid()
    if process not in _of_this_process or not _of_this_process[process].folder.is_dir():
        _of_this_process[process] = PageFiles(kept_seconds, os.environ.get(_VARIABLE))
    files = _of_this_process[process]
    os.environ[_VARIABLE] = str(files.folder)
    return files


__all__ = ["PageFiles", "page_files", "remove_left_over"]
