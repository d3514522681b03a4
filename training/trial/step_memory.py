"""Peak memory of single steps: of a CUDA device, or of this process on the host."""

from contextlib import suppress
from pathlib import Path

import torch

from ...data.pixels.cache import available_memory
from ..loop.training_state import process_peak

HOST_SHARE = 0.7  # of the memory that is available on the host before the trial; others need some too
DEVICE_SHARE = 0.95  # of the memory of a CUDA device that others leave; some of it is lost between blocks
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class StepMemory:
    """Peak memory that steps need beyond what this process holds before.

    Args:
        device: Device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_cuda = device, device.type == "cuda"
        self.share = DEVICE_SHARE if self.on_cuda else HOST_SHARE
        self.base, self.available = 0, 0
        self.measure_base()

    def measure_base(self) -> None:
        """Reads what is held and what is available now."""
        if self.on_cuda:
            free, _ = torch.cuda.mem_get_info(self.device)
            self.available = free + torch.cuda.memory_reserved(self.device)
        else:
            self.base, self.available = resident_memory(), available_memory()

    @property
    def budget(self) -> int:
        """Largest number of bytes that a step may need."""
        return int(self.share * self.available)

    def begin(self) -> None:
        """Forgets the peak of earlier steps."""
        if self.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with suppress(OSError):  # elsewhere than on Linux the peak is that of the whole process, which is no less
            _CLEAR.write_text("5", encoding="ascii")

    def needed(self) -> int:
        """Returns the peak in bytes since `begin`: all of a CUDA device, on the host what came to the base."""
        if self.on_cuda:
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _peak() - self.base)

    def limit_text(self) -> str:
        """Describes the budget for messages."""
        whose = f"{self.device}" if self.on_cuda else "the host"
        return f"{self.budget / 2**20:.0f} MiB, {100 * self.share:.0f} % of the memory available on {whose}"


def resident_memory() -> int:
    """Bytes of memory that this process holds now; its peak where the system does not state it."""
    return _stated("VmRSS") or _peak()


def _peak() -> int:
    return _stated("VmHWM") or process_peak()


def _stated(name: str) -> int | None:
    """Returns an entry of this process's status in bytes; None elsewhere than on Linux."""
    if not _STATUS.is_file():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines())
    return 1024 * int(lines[name].split()[0]) if name in lines else None


__all__ = ["DEVICE_SHARE", "HOST_SHARE", "StepMemory", "resident_memory"]
