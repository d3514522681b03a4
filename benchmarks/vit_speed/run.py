"""Speed and memory of vithub, transformers and timm with the same weights: `python benchmarks/vit_speed/run.py --help`.

Each contender lives in a process of its own; one computes at a time, and in each round they take turns in another
order, so that what else the machine does falls on all alike. docs/speed.md says what the figures mean.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from report import OURS, PEERS, describe_machine, describe_versions, summarise, table_of
from rich.console import Console
from worker import seconds_of_others

_JOB_OPTIONS = ("model", "image_size", "batch_size", "threads", "device", "drop_path", "allocator")
MODES, PRECISIONS = ("inference", "training"), ("fp32", "bf16")
TOLERANCE = 1e-4  # of logits, between any two contenders, fp32
TRAINING_VARIANTS = ("compiled", "master-weights", "compiled-master-weights")
VARIANTS = ("fused-attention", "product-attention", "convolution", "masking", *TRAINING_VARIANTS)
DISTURBED = 0.05  # share of the processor, used by others, that spoils a measurement
# glibc then keeps freed memory. By default the heap's layout at launch decides whether each step gives its memory back
# and fetches it anew, which makes processes with the same work differ by up to a fifth.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", KINETO_LOG_LEVEL="99"
)


class Worker:
    """A contender's process, which runs `program`."""

    program = Path(__file__).with_name("worker.py")

    def __init__(self, job: dict[str, Any]) -> None:
        self.name = job["contender"]
        command = [sys.executable, str(self.program)]
        environment = os.environ | (KEEP_MEMORY if job["allocator"] == "keep" else {})
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self._send(job)

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        assert self.process.stdout is not None
        self._send(request)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended without an answer, with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.process.kill()
        self.process.communicate()


def check_agreement(job: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Compares what the contenders compute; a `RuntimeError` says where they differ."""
    answers = {}
    for name in names:
        with Worker(job | {"contender": name}) as worker:
            answers[name] = worker.ask(do="check")
    ours, logits = answers[names[0]], [value for row in answers[names[0]]["logits"] for value in row]
    if max(logits) - min(logits) < 1:
        raise RuntimeError("the logits are nearly constant: their agreement would say nothing")
    differences: dict[str, float] = {}
    for name in names[1:]:
        theirs = [value for row in answers[name]["logits"] for value in row]
        differences[name] = max(abs(a - b) for a, b in zip(logits, theirs, strict=True))
        if not differences[name] <= TOLERANCE:
            raise RuntimeError(f"logits of {names[0]} and {name} differ by {differences[name]:.1e}")
        if answers[name]["parameters"] != ours["parameters"]:
            raise RuntimeError(f"{names[0]} has {ours['parameters']} parameters, {name} {answers[name]['parameters']}")
        for figure in ("loss", "gradient_norm"):
            if not abs(answers[name][figure] / ours[figure] - 1) <= TOLERANCE:
                raise RuntimeError(f"{figure} of {names[0]} is {ours[figure]}, of {name} {answers[name][figure]}")
    return {
        "parameters": ours["parameters"],
        "largest_logit": max(map(abs, logits)),
        "fp32_logits_differ_from_ours": differences,
        "bf16_logits_differ_from_own_fp32": {name: answer["bf16_difference"] for name, answer in answers.items()},
    }


class Quiet:
    """Repeats a measurement that other processes disturbed, whatever it showed, while patience lasts."""

    def __init__(self, patience: float) -> None:
        self.deadline = time.monotonic() + patience
        self.limit = DISTURBED * (os.cpu_count() or 1)
        self.repeated = self.disturbed = 0

    def measure(self, worker: Worker, seconds: float) -> dict[str, Any]:
        """A measurement made in peace, or the last one before the patience ends; that is counted as disturbed."""
        while True:
            self.wait()
            figures = worker.ask(do="measure", seconds=seconds)
            if figures["cores_of_others"] <= self.limit:
                return figures
            if time.monotonic() > self.deadline:
                self.disturbed += 1
                return figures
            self.repeated += 1

    def wait(self) -> None:
        """Until others leave the processor alone for a second, or the patience ends."""
        others = self.limit + 1
        while others > self.limit and time.monotonic() < self.deadline:
            before, start = seconds_of_others(), time.monotonic()
            time.sleep(1)
            others = (seconds_of_others() - before) / (time.monotonic() - start)


def run_case(job: dict[str, Any], names: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """Per round, each contender's measurement; the order moves on by one from round to round."""
    quiet, measured = Quiet(options.patience * 60), []
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(job | {"contender": name})) for name in names]
        for worker in workers:  # loads, and lets the libraries choose and compile their kernels
            worker.ask(do="measure", seconds=min(options.seconds, 1))
        for number in range(options.rounds):
            turn = number % len(workers)
            order = workers[turn:] + workers[:turn]
            measured.append({worker.name: quiet.measure(worker, options.seconds) for worker in order})
        case = {"rounds": measured, "repeated": quiet.repeated, "disturbed": quiet.disturbed}
        if options.profile:
            case["time_by_operation"] = {}
            for worker in (worker for worker in workers if worker.name != "gemm"):
                quiet.wait()
                case["time_by_operation"][worker.name] = worker.ask(do="profile")
    return case


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", choices=("Ti", "S", "B", "L", "H"), default="S", help="size; patches of 16, H of 14")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contender")
    parser.add_argument("--seconds", type=float, default=5, help="per measurement, at least; and at least two steps")
    parser.add_argument("--patience", type=float, default=3, help="minutes per case to wait for a quiet machine")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 means torch's own choice")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--drop-path", type=float, default=0.0, help="stochastic depth; transformers' ViT has none")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=(),
        help="also ours with one choice undone, or trained with model.compile, training.master_weights or both",
    )
    parser.add_argument("--profile", action="store_true", help="also the time by operation of one step")
    parser.add_argument(
        "--allocator",
        choices=("keep", "default"),
        default="keep",
        help="keep: freed memory stays in the process; default: the luck of each launch is in the figures",
    )
    parser.add_argument("--json", type=Path, default=Path("runs/benchmark.json"), help="file for all figures")
    parser.add_argument("--quick", action="store_true", help="batches of 4, 2 rounds of 1 second: to see that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch_size, options.rounds, options.seconds = 4, 2, 1.0
        options.patience = 0.0
    for name in ("image_size", "batch_size", "rounds", "seconds"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {getattr(options, name)}")
    training_only = [name for name in options.variants if name in TRAINING_VARIANTS]
    if training_only and tuple(options.mode) != ("training",):
        parser.error(f"--variants {' '.join(training_only)}: only with --mode training, got {' '.join(options.mode)}")
    if any("master" in name for name in training_only) and tuple(options.precision) != ("bf16",):
        parser.error(f"--variants with master weights: only with --precision bf16, got {' '.join(options.precision)}")
    if not 0 <= options.drop_path < 1:
        parser.error(f"--drop-path must be in [0, 1), got {options.drop_path}")
    return options


def main() -> None:
    """Measures, prints tables and writes the JSON file."""
    options = parse()
    from shared_weights import write_weights  # reads the environment above

    console, names = Console(), (OURS, *PEERS)
    variants = [f"{OURS}+{name}" for name in options.variants]
    console.width = max(console.width, 120)  # where it is no terminal
    machine = describe_machine(options.device, options.threads)
    if machine["load_before"] > 0.5:
        console.print(f"The load of this machine is {machine['load_before']:.1f}: other work will be in the figures.")
    job = {key: getattr(options, key) for key in _JOB_OPTIONS}
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/vit_speed/run.py", *sys.argv[1:]]),
        "machine": machine,
        "versions": describe_versions(),
        "settings": job | {"rounds": options.rounds, "seconds": options.seconds},
    }
    with tempfile.TemporaryDirectory() as folder:
        operations = write_weights(Path(folder), options.model, options.image_size)
        job["weights"] = folder
        result |= {"operations_per_image": operations, "agreement": check_agreement(job, names), "cases": []}
        largest = max(result["agreement"]["fp32_logits_differ_from_ours"].values())
        console.print(f"Same weights in all three: fp32 logits differ by {largest:.1e} at most.")
        for mode in options.mode:
            for precision in options.precision:
                case: dict[str, Any] = {"mode": mode, "precision": precision}
                case |= run_case(job | case, (*names, *variants, "gemm"), options)
                case |= summarise(case.pop("rounds"), options.batch_size, operations[mode])
                result["cases"].append(case)
                console.print(table_of(case))
                for name, shares in case.get("time_by_operation", {}).items():
                    parts = (f"{operation} {share:.0%}" for operation, share in shares.items())
                    console.print(f"{name}: {', '.join(parts)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"All figures: {options.json}")


if __name__ == "__main__":
    main()
