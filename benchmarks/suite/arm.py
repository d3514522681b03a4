"""One contender of one case in a process of its own: reads a job as JSON, then answers each line with a measurement."""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def peak_mb() -> float:
    """Largest resident size of this process, or of a program that it ran, in MB."""
    status = Path("/proc/self/status")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    if status.exists():
        own = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")) / 1e3
    return round(own, 1)


def product_rate(size: int) -> float:
    """GFLOP/s of a square matrix product in fp32: the machine's speed at this moment."""
    import torch

    left = right = torch.ones(size, size)
    torch.mm(left, right)
    begun = time.perf_counter()
    torch.mm(left, right)
    return 2e-9 * size**3 / (time.perf_counter() - begun)


def main() -> None:
    """Builds the step, makes it once, and measures it when asked."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    job = json.loads(sys.stdin.readline())
    if job["library"] == "product":
        for _ in sys.stdin:
            answers.write(json.dumps({"gflops": product_rate(256 if job["size"] == "tiny" else 2048)}) + "\n")
        return
    from arms import CASES

    step = CASES[job["case"]][1](job["library"], job["size"], Path(job["folder"]))
    if job["case"] != "finetuning":
        step()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for line in sys.stdin:
        least: float = json.loads(line)["seconds"]
        begun, steps = time.perf_counter(), 0
        while steps < 1 or time.perf_counter() - begun < least:
            step()
            steps += 1
        seconds = (time.perf_counter() - begun) / steps
        found: dict[str, Any] = {"seconds": seconds, "peak_mb": peak_mb()}
        answers.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
