"""One profile: where the time of three training steps of a ViT-S/16 goes, by kernel."""

from typing import Any

import torch
from check import Check, Record, measured
from phase_throughput import batch, build, training_step
from torch.profiler import ProfilerActivity, profile

ROWS = 20


def kernels_of_a_training_step(check: Check) -> Record:
    """Kernels (operations on a CPU) with the most time: milliseconds and calls per step, and their share."""
    pixels, labels = batch("S", check)
    step = training_step(build("vithub", "S", check, drop_path=0.1), pixels, labels, check)
    for _ in range(1 if check.tiny else 5):
        step()
    check.wait()
    steps = 1 if check.tiny else 3
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if check.gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        check.wait()
    events: list[tuple[str, float, int]] = []
    for event in profiler.key_averages():
        found: Any = event
        on_device = check.gpu and found.device_type == torch.autograd.DeviceType.CUDA
        time = found.self_device_time_total if check.gpu else found.self_cpu_time_total
        if on_device or not check.gpu:
            events.append((found.key, time, found.count))
    total = sum(time for _, time, _ in events)
    table = [
        {
            "kernel": name[:100], "milliseconds": round(time / steps / 1e3, 3), "share": round(time / total, 4),
            "calls": round(count / steps, 1),
        }
        for name, time, count in sorted(events, key=lambda event: -event[1])[:ROWS]
    ]  # fmt: skip
    return measured(images=len(labels), milliseconds_per_step=round(total / steps / 1e3, 2), table=table)


STEPS = (kernels_of_a_training_step,)
