"""What attention maps cost against the plain forward pass, and against transformers in eager mode.

    python benchmarks/attention_maps.py --output benchmarks/results/attention_maps.json

A ViT-S/16 of transformers with random weights, one image, fp32, one thread. Times are processor seconds, so that other
processes disturb them little; all ways take turns in one process, and the ratio of each to the plain pass of the same
turn is what is averaged (median). Peak memory is that of a process of its own per way and size: the largest resident
size less that before the first image, glibc giving freed memory back at once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = (224, 448, 896)


def ways(size: int) -> dict[str, Callable[[], Any]]:
    """Each way of running the model on one image."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    import vithub

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    config = ViTConfig(**shape, image_size=size, patch_size=16)
    model = ViTForImageClassification(config).eval()
    image = torch.randn(1, 3, size, size)

    def plain() -> Any:
        with torch.no_grad():
            return model(image).logits

    def eager() -> Any:
        model.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                return model(image, output_attentions=True).attentions
        finally:
            model.set_attn_implementation("sdpa")

    def streamed() -> None:
        for weights in vithub.attention_maps(model, image):
            del weights

    return {
        "plain forward": plain,
        "CLS row of every layer": lambda: vithub.attention_rows(model, image),
        "rollout": lambda: vithub.explain(model, image, "rollout"),
        "all maps, one at a time": streamed,
        "eager output_attentions": eager,
        "relevance (with gradients)": lambda: vithub.explain(model, image, "relevance"),
    }


def measured_times(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Processor seconds of each way, and its ratio to the plain pass."""
    runs = ways(size)
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        order = list(runs)[number % len(runs) :] + list(runs)[: number % len(runs)]
        for name in order:
            begun = time.process_time()
            runs[name]()
            seconds[name].append(time.process_time() - begun)
    plain = seconds["plain forward"]
    return {
        name: {
            "seconds": statistics.median(values),
            "ratio": statistics.median(value / base for value, base in zip(values, plain, strict=True)),
        }
        for name, values in seconds.items()
    }


def peak_memory(name: str, size: int) -> float:
    """MiB that one run needs beyond the model and the libraries; called in a process of its own."""
    run = ways(size)[name]
    tiny = ways(32)
    tiny[name]()  # libraries and kernels are loaded
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 1024


def resident(kind: str) -> int:
    """KiB in memory now ("VmRSS") or at most ("VmHWM"), as Linux tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1])


def main() -> None:
    """Measures all, and prints or writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way (7)")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="pixels (224 448 896)")
    parser.add_argument("--output", type=Path, help="JSON file; printed otherwise")
    parser.add_argument("--memory-of", nargs=2, metavar=("WAY", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of[0], int(arguments.memory_of[1])))
        return
    result: dict[str, dict[str, dict[str, float]]] = {}
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for size in arguments.sizes:
        result[str(size)] = times = measured_times(size, arguments.rounds)
        for name in times:
            command = [sys.executable, __file__, "--memory-of", name, str(size)]
            answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            times[name]["peak_mib"] = float(answer.stdout.split()[-1])
            print(f"{size:4} px  {name:28} {times[name]['seconds']:7.3f} s  x{times[name]['ratio']:5.2f}  "
                  f"{times[name]['peak_mib']:7.0f} MiB", file=sys.stderr)  # fmt: skip
    text = json.dumps({"model": "ViT-S/16, one image, fp32, one thread", "sizes": result}, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
