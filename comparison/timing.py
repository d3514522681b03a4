"""Interleaved timing of several functions, so that a disturbance affects all of them; and peak memory."""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

Step = Callable[[], object]


def interleaved_times(steps: dict[str, Step], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Measures the seconds of each step in each round; the order rotates, and each step runs once beforehand.

    Args:
        steps: Functions to time, by name.
        rounds: Number of measurements per step.
        device: Device on which the steps compute.
    """
    wait = torch.cuda.synchronize if device.startswith("cuda") else _nothing
    for step in steps.values():
        step()
    wait()
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            steps[name]()
            wait()
            times[name].append(time.perf_counter() - start)
    return times


def peak_memory(step: Step, device: str = "cpu") -> int | None:
    """Measures the bytes that a step holds at most beyond what was held before; None if the system does not tell.

    On a CPU it is the high-water mark of the process, reset before (Linux only), accurate to about a megabyte.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    step()  # memory allocated once, such as a library's scratch space, must not count
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status_bytes(status, "VmRSS")
    step()
    return max(0, _status_bytes(status, "VmHWM") - before)


def seconds_of_others() -> float | None:
    """Returns the processor seconds of all other processes since the machine started; None except on Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - time.process_time()


def _status_bytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _nothing() -> None:
    pass


def busy_notes(before: float | None, seconds: float) -> list[str]:
    """Notes how many cores other processes used while times were taken; empty where that is not known.

    Args:
        before: `seconds_of_others` before the first time was taken.
        seconds: Seconds of wall time that passed while times were taken.
    """
    if before is None or seconds <= 0:
        return []
    busy = max(0.0, (seconds_of_others() or 0.0) - before) / seconds
    return [f"other processes used {busy:.1f} cores while times were taken"]


__all__ = ["Step", "busy_notes", "interleaved_times", "peak_memory", "seconds_of_others"]
