"""Speed and memory of vithub against its peers, all of it in one command.

    python benchmarks/run.py                                # short: some minutes on two quiet cores
    python benchmarks/run.py --full                         # more rounds, longer
    python benchmarks/run.py --only matcher,detr-step       # some cases

Each contender is a process of its own; one computes at a time, and in each round they take turns in another order.
Figures are medians over the rounds, ratios those of neighbouring turns, with the machine's rate in matrix products
beside. Each case is written to the file of results as soon as it is measured, so that a run that was cut off goes on
with `--resume`.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from vithub.training.runtime.precision import has_fast_bf16

SUITE = Path(__file__).resolve().parent / "suite"
sys.path.insert(0, str(SUITE))
from arms import CASES  # noqa: E402
from drawing import picture, table  # noqa: E402

OTHERS = ("activations", "loader")  # cases that are no contest of steps
SIZES: dict[str, tuple[int, float]] = {"tiny": (1, 0.0), "short": (3, 0.5), "full": (7, 3.0)}  # rounds, seconds
SHORT_LEAVES_OUT = {"inference-64", "resolution-448", "depth-24", "finetuning"}
# glibc then keeps freed memory, without which equal processes differ by up to a fifth.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "ACCELERATE_USE_CPU": "true", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}  # fmt: skip


class Arm:
    """Process of a contender."""

    def __init__(self, case: str, library: str, size: str, folder: str) -> None:
        self.library, pipe = library, subprocess.PIPE
        command = [sys.executable, str(SUITE / "arm.py")]
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | ENVIRONMENT, bufsize=1
        )
        self._send({"case": case, "library": library, "size": size, "folder": folder})

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def measure(self, seconds: float) -> dict[str, float]:
        """Figures of steps for at least so many seconds, at least one."""
        self._send({"seconds": seconds})
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"the process of {self.library} ended with code {self.process.wait()}: see above")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()


def run_case(name: str, size: str) -> dict[str, Any]:
    """Figures of a case: each contender's medians, our speed to each other's by pair, the product rate."""
    libraries, _, images = CASES[name]
    rounds, seconds = SIZES[size]
    if name == "finetuning":
        rounds = 1
    measured: dict[str, list[dict[str, float]]] = {library: [] for library in libraries}
    rates = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        arms = []
        for library in (*libraries, "product"):
            arm = Arm(name, library, size, folder)
            stack.callback(arm.close)
            if library == "product":
                rate = arm
            else:
                arm.measure(0) if name != "finetuning" else None  # builds, and lets libraries choose their kernels
                arms.append(arm)
        for number in range(rounds):
            turn = number % len(arms)
            for arm in arms[turn:] + arms[:turn]:
                measured[arm.library].append(arm.measure(seconds))
            rates.append(rate.measure(0)["gflops"])
    ours = measured[libraries[0]]
    return {
        "images": 2 if size == "tiny" and images else images,
        "contenders": {
            library: {
                "seconds": statistics.median(row["seconds"] for row in rows),
                "rounds": [row["seconds"] for row in rows],
                "peak_mb": max(row["peak_mb"] for row in rows),
            }
            for library, rows in measured.items()
        },
        "ours_to": {
            library: statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, rows, strict=True))
            for library, rows in measured.items()
            if library != libraries[0]
        },
        "product_gflops": statistics.median(rates),
    }


def run_other(name: str, size: str) -> dict[str, Any]:
    """Figures of a case that is no contest of steps."""
    if name == "activations":
        from activations import activations

        return activations(size)
    program = Path(__file__).with_name("loader.py")
    if not program.is_file():
        return {"not_available": "there is no benchmarks/loader.py"}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=900)
    return {"code": done.returncode, "output": done.stdout.splitlines()[-40:]}


def described(options: argparse.Namespace) -> dict[str, Any]:
    """Date, command, machine and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]),
        "size": options.size,
        "precision": options.precision,
        "threads": torch.get_num_threads(),
        "machine": {
            "processor": processor, "cores": os.cpu_count(), "system": platform.platform(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {name: version(name) for name in ("vithub", "torch", "transformers", "timm")},
        "cases": {},
    }  # fmt: skip


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CASES, *OTHERS]
    parser.add_argument("--full", action="store_true", help="all cases, 7 rounds of 3 seconds")
    parser.add_argument("--tiny", action="store_true", help="tiny models, one round: to see that it runs")
    parser.add_argument("--only", help=f"cases with commas, of {', '.join(names)}")
    parser.add_argument("--resume", action="store_true", help="leave out the cases that the file has already")
    parser.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto",
        help="of inference and the training step; auto is bf16 if the processor has instructions for it, else fp32",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark.json"), help="results (runs/benchmark.json)")
    options = parser.parse_args(arguments)
    if options.full and options.tiny:
        parser.error("--full and --tiny are both sizes: give one")
    if options.precision == "auto":
        options.precision = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"
    ENVIRONMENT["BENCHMARK_PRECISION"] = options.precision
    options.size = "full" if options.full else "tiny" if options.tiny else "short"
    chosen = options.only.split(",") if options.only else None
    if unknown := set(chosen or []) - set(names):
        parser.error(f"--only takes {', '.join(names)}, got {', '.join(sorted(unknown))}")
    leaves_out = SHORT_LEAVES_OUT if options.size == "short" else set()
    options.cases = chosen or [name for name in names if name not in leaves_out]
    return options


def main() -> None:
    """Measures the cases, and writes results, table and picture after each."""
    options = parse()
    result = described(options)
    if options.resume and options.json.is_file():
        before = json.loads(options.json.read_text(encoding="utf-8"))
        for key in ("size", "precision", "threads"):
            if before[key] != result[key]:
                sys.exit(f"run.py: {options.json} is of the {key} {before[key]}, not {result[key]}: name another file")
        if before["machine"]["processor"] != result["machine"]["processor"]:
            sys.exit(f"run.py: {options.json} is of another machine, an {before['machine']['processor']}")
        result["cases"], result["machine"] = before["cases"], before["machine"]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.cases:
        if options.resume and name in result["cases"]:
            continue
        begun, load = time.monotonic(), os.getloadavg()[0]
        try:
            found = run_case(name, options.size) if name in CASES else run_other(name, options.size)
        except (RuntimeError, subprocess.SubprocessError, OSError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
            continue
        result["cases"][name] = found | {"load_before": load}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        ratios = ", ".join(f"{ratio:.2f} x {library}" for library, ratio in found.get("ours_to", {}).items())
        print(f"{name} ({time.monotonic() - begun:.0f} s) {ratios}", flush=True)
    if result["cases"]:
        options.json.with_suffix(".md").write_text(table(result), encoding="utf-8")
        picture(result, options.json.with_suffix(".png"))
        print(table(result))
    if failed:
        sys.exit(f"run.py: not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
