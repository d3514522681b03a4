"""Checks vithub on a GPU in one command: correctness first, then speed.

    python benchmarks/gpu/run.py                            # all phases, at most eight minutes
    python benchmarks/gpu/run.py --phases models,training
    python benchmarks/gpu/run.py --device cpu --tiny        # that everything runs, on any machine

Each phase is a process of its own with a time limit. Each result is printed and appended to the file of results as one
line of JSON as soon as it is there, so that a cut leaves what was done. Exit code 0: nothing that was checked failed.
"""

import argparse
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# Seconds of each phase at most, in the order of their worth; their sum is within the eight minutes.
PHASES = {
    "models": 45,
    "training": 75,
    "options": 75,
    "processes": 45,
    "use": 45,
    "throughput": 45,
    "detr": 35,
    "end_to_end": 50,
    "profile": 20,
    "compiled": 120,
}
BUDGET = 480
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "KINETO_LOG_LEVEL": "99"}
NO_GPU = 3  # exit code of a phase's process
TINY_LIMIT = 240  # seconds of a phase on a CPU that others use too


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", default=",".join(PHASES), help=f"names with commas, of {', '.join(PHASES)}")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (cuda)")
    parser.add_argument("--tiny", action="store_true", help="models and data for a CPU, a few steps")
    parser.add_argument("--photos", type=Path, help="folder of JPEG files; generated ones otherwise")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu.jsonl"), help="results (runs/gpu.jsonl)")
    parser.add_argument("--budget", type=float, default=BUDGET, help=f"seconds for all phases ({BUDGET})")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the phase that this process is to run
    options = parser.parse_args(arguments)
    options.phases = [name for name in options.phases.split(",") if name]
    if unknown := [name for name in options.phases if name not in PHASES]:
        parser.error(f"--phases takes {', '.join(PHASES)}, got {', '.join(unknown)}")
    return options


def phase_records(name: str, device: str, tiny: bool, folder: Path, photos: Path | None) -> Iterator[dict[str, Any]]:
    """Runs a phase in this process and yields its records."""
    from check import Check, records

    module = importlib.import_module(f"phase_{name}")
    return records(name, module.STEPS, Check(device, tiny, folder, photos))


def run_here(options: argparse.Namespace) -> None:
    """Runs one phase and writes each record as a line."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the records
    os.environ |= QUIET
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(NO_GPU)
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        for record in phase_records(options.here, options.device, options.tiny, Path(folder), options.photos):
            answers.write(json.dumps(record) + "\n")


def run_phase(name: str, options: argparse.Namespace, limit: float) -> Iterator[dict[str, Any]]:
    """Runs a phase in a process of its own; the last record tells of a process that failed or was ended."""
    command = [sys.executable, __file__, "--here", name, "--device", options.device]
    command += ["--tiny"] * options.tiny + (["--photos", str(options.photos)] if options.photos else [])
    environment = os.environ | ({"ACCELERATE_USE_CPU": "true"} if options.device == "cpu" else {})
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=told, text=True, env=environment, start_new_session=True
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reading = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reading.start()
        deadline = time.monotonic() + limit
        try:
            while (line := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                yield json.loads(line)
            if process.wait() == NO_GPU:
                sys.exit(f"run.py: no GPU is there for --device {options.device}; --device cpu --tiny runs anywhere")
            if process.returncode:
                told.seek(0)
                yield {"phase": name, "check": "process", "status": "failed", "error": told.read().strip()[-2000:]}
        except queue.Empty:
            yield {"phase": name, "check": "process", "status": "cut", "limit": limit}
        finally:
            with suppress(ProcessLookupError):  # the processes that it began end with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reading.join()
            assert process.stdout is not None
            process.stdout.close()


def _read(process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def shown(record: dict[str, Any]) -> str:
    """A record as one line for people, and a table where it has one."""
    named = {"phase", "check", "status", "table"}
    figures = ", ".join(f"{name} {_short(value)}" for name, value in record.items() if name not in named)
    line = f"{record['status']:13} {record['phase']}.{record['check']}: {figures}"
    rows = [
        f"    {row['milliseconds']:10.3f} ms {row['share']:7.1%} {row['calls']:8.1f} x  {row['kernel']}"
        for row in record.get("table", [])
    ]
    return "\n".join([line, *rows])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 400 else f"{text[:400]}..."


def main() -> None:
    """Runs the phases, prints and appends their records, and ends with the counts."""
    options = parse()
    if options.here:
        run_here(options)
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    begun, counts = time.monotonic(), Counter[str]()
    with options.output.open("a", encoding="utf-8") as file:
        for name in options.phases:
            left = options.budget - (time.monotonic() - begun)
            if left < 10:
                found: Any = iter([{"phase": name, "check": "process", "status": "cut", "limit": 0}])
            else:
                found = run_phase(name, options, min(TINY_LIMIT if options.tiny else PHASES[name], left))
            for record in found:
                counts[record["status"]] += 1
                file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **record}) + "\n")
                file.flush()
                print(shown(record), flush=True)
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{summary}; {time.monotonic() - begun:.0f} s; all results: {options.output}")
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
