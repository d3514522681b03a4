"""Lock of an output folder that keeps two processes from writing it; the system releases it if its process dies."""

import fcntl
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ..hub.folders import TargetError

LOCK = ".lock"
_held: set[str] = set()  # folders locked by this process, which a POSIX lock does not keep from locking them again
_guard = threading.Lock()


class RunLock:
    """Context that locks the folder of a run or of a prediction.

    The system releases a POSIX lock when its process ends, however it ends, and loading processes do not inherit it. So
    a killed run can be resumed at once; the existence of the lock file alone means nothing.

    Args:
        folder: Folder to lock; must exist.
        doing: What its holder does, for the message.

    Raises:
        TargetError: On entry, if another process writes the folder or the lock file cannot be written.
    """

    def __init__(self, folder: Path, doing: str = "trained in") -> None:
        self.folder, self.file, self.doing = folder, folder / LOCK, doing
        self._key = os.fspath(folder.resolve())
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        with _guard:
            if self._key in _held:
                raise TargetError(f"{self.folder} is being {self.doing} by this process already")
            try:
                self._descriptor = self._lock()
            except TargetError:
                raise
            except OSError as error:
                raise TargetError(f"cannot write {self.folder}: {error.strerror or error}") from error
            _held.add(self._key)
        return self

    def _lock(self) -> int:
        while True:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            ours = False
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if ours := self._is_the_file(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    return descriptor
            except (BlockingIOError, PermissionError) as error:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise TargetError(
                    f"{self.folder} is being {self.doing} by {holder}; wait for its end, or stop it"
                ) from error
            except OSError:  # such as a full disk, which takes the file but not its content
                if ours:
                    self.file.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _is_the_file(self, descriptor: int) -> bool:
        """Whether the locked file still exists at its path: the previous holder removes it."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.file.stat())
        except FileNotFoundError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _guard:
            assert self._descriptor is not None
            with suppress(OSError):  # of a folder that has become read-only; the next holder takes the file over
                self.file.unlink(missing_ok=True)
            os.close(self._descriptor)
            _held.discard(self._key)
            self._descriptor = None


__all__ = ["LOCK", "RunLock"]
