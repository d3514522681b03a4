"""Peak memory of training steps, ours against transformers at equal batches, each in processes of its own.

python benchmarks/memory.py --output benchmarks/results/memory.json

A process builds a model with random weights, makes two steps in fp32 (forward, backward, AdamW) on random images, and
states the largest resident memory since its first step began, in which Python and the libraries are included. Ours
and transformers' take turns. A ViT-S/16 at 224 pixels is measured with and without gradient checkpointing, and a DETR
with a ResNet of 18 layers at 320, whose dropout is the paper's in both. Beside it, bytes that autograd keeps for the
backward pass, counted as it saves them (`suite/activations.py`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "suite"))
CASES = ("vit", "vit, checkpointed", "detr")
LIBRARIES = ("vithub", "transformers")


def measure(library: str, case: str, size: str, batch: int) -> float:
    """Peak of this process in MB."""
    import arms
    import torch
    from arm import peak_mb

    if case == "detr":
        step = arms.detr(library, size, Path())
    else:
        model = arms.vit(library, size).train()
        if case.endswith("checkpointed"):
            model.activation_checkpointing_enable()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        images, labels = arms.pixels(batch, 32 if size == "tiny" else 224), torch.arange(batch)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(images).logits, labels).backward()
            optimizer.step()

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    for _ in range(2):  # the first makes the state of the optimizer
        step()
    return peak_mb()


def in_a_process(library: str, case: str, size: str, batch: int) -> float:
    """Peak of a process of its own in MB."""
    command = [sys.executable, __file__, "--child", json.dumps([library, case, size, batch])]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints medians and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="tiny models: to see that it runs")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES, help="measure these, keep others' figures")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(measure(*json.loads(options.child))))
        return
    from activations import activations, detr_activations
    from loader import cpu_name

    size = "tiny" if options.tiny else "short"
    kept = options.output is not None and options.output.is_file() and tuple(options.only) != CASES
    known = json.loads(options.output.read_text(encoding="utf-8")) if kept else {"cases": {}}
    cases: dict[str, Any] = known["cases"]
    for case in options.only:
        peaks: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        for turn in range(options.rounds):
            for library in LIBRARIES[:: -1 if turn % 2 else 1]:
                peaks[library].append(in_a_process(library, case, size, options.batch_size))
        medians = {library: statistics.median(found) for library, found in peaks.items()}
        cases[case] = {"peak_mb": peaks, "ours_to_transformers": round(medians["vithub"] / medians["transformers"], 3)}
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "batch_size": {"vit": options.batch_size, "detr": 2},
        "precision": "fp32",
        "cases": cases,
        "activations": activations(size) if "vit" in options.only else known.get("activations"),
        "detr_activations_mb": detr_activations(size) if "detr" in options.only else known.get("detr_activations_mb"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
