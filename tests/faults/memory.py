"""Bounds the memory that a case takes: what is too large has to be refused before it is made."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 2**30


class MemoryTakenError(Exception):
    """A case took more memory than it may."""


def _resident(field: str) -> int:
    """Bytes of this process: VmRSS as they are, or VmHWM at most since the mark was set back."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


@contextlib.contextmanager
def within(most: int = MOST_BYTES) -> Iterator[None]:
    """Context that lets the resident memory of this process grow by a number of bytes only, also for a moment.

    Raises:
        MemoryTakenError: It grew by more.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins at what is there
    before = _resident("VmRSS")
    try:
        yield
    finally:
        if (taken := _resident("VmHWM") - before) > most:
            raise MemoryTakenError(f"{taken / 2**20:.0f} MiB of memory were taken")


__all__ = ["MOST_BYTES", "MemoryTakenError", "within"]
