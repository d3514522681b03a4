"""Moments of a running command, seen from within its process, and the faults that strike at one of them.

A moment is a file opened, made, renamed or synced below a folder, a step of the progress, or a request to the Hub.
Files are seen by an audit hook of the interpreter, which may also answer them with an error, as a full disk does. What
libraries write by themselves is not seen; a small file system and a limit of file sizes are met by these too.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WRITES = frozenset({"write", "mkdir", "rename", "sync"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OVERRIDE = 1 << 1  # CAP_DAC_OVERRIDE, with which the superuser writes to read-only folders
_REMOUNT, _DETACH = 32, 2
_libc = ctypes.CDLL(None, use_errno=True)
Act = Callable[[str, str], None]


class Watch:
    """Counts the moments of what happens in its block and strikes at one of them.

    Args:
        root: Folder whose files count.
        place_of: Names the place of a moment by its kind and its file or task.
        at: Number of the moment to strike at, from 0; None only counts.
        act: Called then with the kind and the file.
    """

    current: "Watch | None" = None

    def __init__(self, root: Path, place_of: Act, at: int | None = None, act: Act | None = None) -> None:
        self.root, self.home = f"{root}/", f"{root}/home"  # the libraries' own files are no moments
        self.place_of, self.at, self.act = place_of, at, act
        self.places: list[tuple[str, str]] = []
        self.lasting: Callable[[str], OSError] | None = None  # what every further write ends with
        self.process, self.thread, self.busy = os.getpid(), threading.get_ident(), False

    @property
    def struck(self) -> bool:
        """Whether the moment came."""
        return self.at is not None and len(self.places) > self.at

    def __enter__(self) -> "Watch":
        _install()
        Watch.current = self
        return self

    def __exit__(self, *error: Any) -> None:
        Watch.current = None

    def moment(self, kind: str, path: str) -> None:
        """Counts a moment, and strikes."""
        if self.busy or os.getpid() != self.process or threading.get_ident() != self.thread:
            return
        self.places.append((self.place_of(kind, path), kind))
        if self.at == len(self.places) - 1:
            self.busy = True  # what the strike itself opens is no moment
            try:
                self.act(kind, path)
            finally:
                self.busy = False
        if self.lasting is not None and kind in WRITES:
            raise self.lasting(path)

    def file_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Takes an event of the interpreter."""
        path = arguments[1] if event == "os.rename" else arguments[0]
        path = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if path and not path.startswith("/") and event == "open":
            path = str(Path.cwd() / path)
            if not Path(path).exists():  # of a folder that was opened, by its descriptor
                return
        if not path.startswith(self.root) or path.startswith(self.home):
            return
        if event != "open":
            self.moment({"os.rename": "rename", "os.mkdir": "mkdir"}[event], path)
        elif arguments[2] & _WRITING:
            self.moment("write", path)
        elif not arguments[2] & os.O_DIRECTORY and not self.busy and not Path(path).is_dir():
            self.moment("read", path)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.rename", "os.mkdir") and (watch := Watch.current) is not None:
        watch.file_event(event, arguments)


_installed: list[bool] = []


def _install() -> None:
    """Puts the hooks in, once: the interpreter keeps its audit hooks as long as it lives."""
    if _installed:
        return
    _installed.append(True)
    import httpx
    from vithub.training.runtime.progress import TerminalReporter

    sys.addaudithook(_hook)
    sync, start, advance = os.fsync, TerminalReporter.start, TerminalReporter.advance
    send = httpx.HTTPTransport.handle_request

    def synced(descriptor: int) -> None:
        sync(descriptor)
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if (watch := Watch.current) is not None and path.startswith(watch.root):
            watch.moment("sync", path)

    def started(self: Any, task: str, total: int | None, done: int = 0) -> None:
        start(self, task, total, done)
        if (watch := Watch.current) is not None:
            watch.moment("task", task)

    def advanced(self: Any, amount: int = 1, **figures: float) -> None:
        advance(self, amount, **figures)
        if (watch := Watch.current) is not None:
            watch.moment("step", self._task)

    def sent(self: Any, request: Any) -> Any:
        if (watch := Watch.current) is not None:
            watch.moment("request", str(request.url))
        answer = send(self, request)
        if (watch := Watch.current) is not None:
            watch.moment("answer", str(request.url))
        return answer

    os.fsync = synced
    TerminalReporter.start, TerminalReporter.advance = started, advanced
    httpx.HTTPTransport.handle_request = sent


def send(name: str) -> Act:
    """Sends this process a signal."""
    return lambda kind, path: os.kill(os.getpid(), getattr(signal, name))


def full(kind: str, path: str) -> None:
    """Fills the disk: this write and all further ones fail."""
    assert Watch.current is not None
    Watch.current.lasting = lambda written: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), written)


def unreadable(kind: str, path: str) -> None:
    """Lets this one file fail to be read."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), path)


def read_only(folder: Path) -> Act:
    """Takes the right to write from a folder and all below it, from the superuser too until `writable`."""

    def act(kind: str, path: str) -> None:
        _capability(held=False)
        for found in [folder, *folder.rglob("*")]:
            if not found.is_symlink():
                found.chmod(found.stat().st_mode & ~0o222)

    return act


def writable(folder: Path) -> None:
    """Gives back what `read_only` took."""
    for found in [folder, *folder.rglob("*")]:
        if not found.is_symlink():
            found.chmod(found.stat().st_mode | 0o200)
    _capability(held=True)


def _capability(held: bool) -> None:
    """Takes or drops the superuser's right to pass over permissions; others never have it."""
    if os.geteuid():
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their higher halves
    assert _libc.capget(header, sets) == 0
    sets[0] = sets[0] | (_OVERRIDE & sets[1]) if held else sets[0] & ~_OVERRIDE
    assert _libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the size of the files that this process writes, as a quota does; the system refuses what goes beyond."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def mount_small(folder: Path, size: int, *, again: bool = False) -> bool:
    """Mounts a file system of so many bytes, or resizes it; False where that is not allowed."""
    options = f"size={size}".encode()
    return _libc.mount(b"none", os.fsencode(folder), b"tmpfs", _REMOUNT if again else 0, options) == 0


def unmount(folder: Path) -> None:
    """Takes the file system away again."""
    _libc.umount2(os.fsencode(folder), _DETACH)


__all__ = [
    "WRITES", "Act", "Watch", "full", "largest_file", "mount_small", "read_only", "send", "unmount", "unreadable",
    "writable",
]  # fmt: skip
