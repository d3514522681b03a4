"""Where an exported OpenVINO graph spends its time, by OpenVINO's own counters, and its speed with other settings.

    vithub export runs/flowers --format openvino --precision bf16 --output runs/flowers-bf16
    python benchmarks/vit_speed/openvino_profile.py runs/flowers-bf16/openvino/openvino_model_bf16.xml --side 196

The settings take turns in one process: the batch free as it is exported, fixed, and in parts on two streams of one
thread each.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino


def compiled(file: Path, batch: int | None, side: int, **settings: Any) -> Any:
    """Compiles a graph in bf16, for a fixed batch or, with None, for any."""
    core = openvino.Core()
    model = core.read_model(file)
    if batch is not None:
        model.reshape([batch, 3, side, side])
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", **settings})


def whole(model: Any, pixels: np.ndarray) -> Callable[[], None]:
    """Step that computes a batch at once."""
    request = model.create_infer_request()
    return lambda: request.infer([pixels], share_inputs=True)


def in_parts(model: Any, pixels: np.ndarray, size: int) -> Callable[[], None]:
    """Step that computes parts of `size` images side by side."""
    parts = [pixels[first : first + size] for first in range(0, len(pixels), size)]
    requests = [model.create_infer_request() for _ in parts]

    def step() -> None:
        for request, part in zip(requests, parts, strict=True):
            request.start_async([part], share_inputs=True)
        for request in requests:
            request.wait()

    return step


def images_per_second(step: Callable[[], None], images: int, seconds: float) -> float:
    """Speed over at least `seconds`."""
    begun, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < seconds:
        step()
        count += 1
    return count * images / taken


def print_counters(file: Path, pixels: np.ndarray) -> None:
    """Prints the share of each kind of operation in the time on one thread."""
    model = compiled(file, len(pixels), pixels.shape[-1], PERF_COUNT=True, NUM_STREAMS=1, INFERENCE_NUM_THREADS=1)
    request = model.create_infer_request()
    spent: dict[str, float] = {}
    for _ in range(3):
        request.infer([pixels], share_inputs=True)
        spent = {}
        for one in request.profiling_info:
            name = f"{one.node_type} {one.exec_type}"
            spent[name] = spent.get(name, 0) + one.real_time.total_seconds()
    total = sum(spent.values())
    print(f"one thread, {len(pixels)} images: {1000 * total / len(pixels):.1f} ms an image")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1])[:8]:
        print(f"  {seconds / total:4.0%}  {name}")


def main() -> None:
    """Times the settings in turns and prints the counters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="openvino_model_bf16.xml")
    parser.add_argument("--side", type=int, default=224, help="pixels (224)")
    parser.add_argument("--batch", type=int, default=16, help="images at once (16)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least (1)")
    options = parser.parse_args()
    file, batch, side = options.file, options.batch, options.side
    pixels = np.random.default_rng(0).standard_normal((batch, 3, side, side)).astype(np.float32)
    steps = {
        "fixed batch": whole(compiled(file, batch, side), pixels),
        "free batch": whole(compiled(file, None, side), pixels),
    }
    for size in (batch // 2, batch // 4):
        if size:
            model = compiled(file, size, side, NUM_STREAMS=2, INFERENCE_NUM_THREADS=2)
            steps[f"two streams, {size} images each"] = in_parts(model, pixels, size)
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(options.rounds):
        for name, step in steps.items():
            speeds[name].append(images_per_second(step, batch, options.seconds))
    for name, own in speeds.items():
        ratio = statistics.median(one / base for one, base in zip(own, speeds["fixed batch"], strict=True))
        print(f"{name}: {statistics.median(own):.1f} images/s, {ratio:.2f} of a fixed batch")
    print_counters(file, pixels)


if __name__ == "__main__":
    main()
