"""Cache of decoded images in memory that all loading processes of a run share."""

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHARE = 0.5  # of the memory that is available when a run begins
_CURSOR = 4096  # bytes before the table of places, of which the first eight hold the end of what is stored
_ALIGNMENT = 64


class PixelCache:
    """Decoded images (3, height, width), uint8, by row, in a file without a name.

    The file lies in memory and belongs to the processes that hold it open: the system frees it when the last of them
    ends, however it ends. Images are stored as they are decoded, until the budget is spent; those that find no room are
    decoded again each time. No pixel depends on whether an image was stored.

    Args:
        rows: Number of rows of the table.
        budget: Largest number of bytes; memory is taken only as images are stored.
    """

    def __init__(self, rows: int, budget: int) -> None:
        self.rows, self.size = rows, _CURSOR + 16 * rows + budget
        self.file = _nameless_file()
        os.ftruncate(self.file, self.size)
        self._map()
        self._cursor[0] = -(-(_CURSOR + 16 * rows) // _ALIGNMENT) * _ALIGNMENT

    def _map(self) -> None:
        self.memory = mmap.mmap(self.file, self.size)
        self._cursor = np.frombuffer(self.memory, np.int64, 1)
        self._places = np.frombuffer(self.memory, np.int64, 2 * self.rows, _CURSOR).reshape(self.rows, 2)

    def __getstate__(self) -> dict[str, Any]:
        """State for a process that is not forked: it gets a copy of the file's descriptor."""
        return {"rows": self.rows, "size": self.size, "file": DupFd(self.file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rows, self.size = state["rows"], state["size"]
        self.file = state["file"].detach()
        self._map()

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)  # the mapping stays as long as images of it are used

    def get(self, row: int) -> torch.Tensor | None:
        """Pixels of a row, a view of the cache that must not be written to; None if they are not stored."""
        place, packed = self._places[row].tolist()
        if not place:
            return None
        height, width = packed >> 32, packed & 0xFFFFFFFF
        stored = torch.frombuffer(self.memory, dtype=torch.uint8, count=3 * height * width, offset=place)
        return stored.view(height, width, 3).permute(2, 0, 1)

    def put(self, row: int, pixels: torch.Tensor) -> bool:
        """Stores the pixels of a row; returns whether there was room for them."""
        _, height, width = pixels.shape
        levels = pixels.permute(1, 2, 0).contiguous().numpy().reshape(-1)
        with self._alone():
            place = int(self._cursor[0])
            if self._places[row, 0] or place + levels.size > self.size:
                return bool(self._places[row, 0])
            self._cursor[0] = -(-(place + levels.size) // _ALIGNMENT) * _ALIGNMENT
            np.frombuffer(self.memory, np.uint8, levels.size, place)[:] = levels
            # stated last: a process that is killed before leaves an unused gap
            self._places[row, 1] = height << 32 | width
            self._places[row, 0] = place
        return True

    @property
    def stored(self) -> int:
        """Number of images stored."""
        return int((self._places[:, 0] > 0).sum())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Context of one process at a time; the system ends it for a process that is killed within."""
        fcntl.lockf(self.file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN)


def _nameless_file() -> int:
    """Descriptor of a new file without a name: in memory on Linux, else a temporary file that is unlinked at once."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoded images")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def available_memory() -> int:
    """Bytes that this process and its children may still take: of the machine, or of its container if that is less."""
    facts = Path("/proc/meminfo")
    if facts.is_file():
        stated = dict(line.split(":", 1) for line in facts.read_text(encoding="ascii").splitlines())
        free = 1024 * int(stated["MemAvailable"].split()[0])
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (most := limit.read_text(encoding="ascii").strip()) != "max":
        free = min(free, max(0, int(most) - int(used.read_text(encoding="ascii"))))
    return free


__all__ = ["SHARE", "PixelCache", "available_memory"]
