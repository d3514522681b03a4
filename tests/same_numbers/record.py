"""Fingerprints of whole jobs, to show that a rebuilding of the code changed no number.

    python tests/same_numbers/record.py --data FOLDER --out before.json      # on the old code
    python tests/same_numbers/record.py --data FOLDER --compare before.json  # on the new code, the same machine

The jobs run through the command line alone, as documented names outlive what lies behind them. Each leaves hashes: of
every published tensor, of `metrics.json` without times, hardware and versions, of the rows of predictions, of
converted weights, and of the recipe. Bits depend on the processor and on torch: compare on one machine. `FOLDER` holds
`data/flowers5`, `data/bccd` and `weights/`; without it the jobs on real photos are left out and named.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What differs between two equal runs.
VOLATILE = {
    "seconds", "energy", "hardware", "versions", "finished", "images_per_second", "waited_for_images", "peak_memory_mb",
}  # fmt: skip

Job = Callable[["Jobs"], dict[str, str]]


class Jobs:
    """The folder in which the jobs run, and the commands that they run.

    Args:
        folder: An empty folder; run folders are made below it.
        data: The folder of real photos and weights, or None.
    """

    def __init__(self, folder: Path, data: Path | None) -> None:
        self.folder, self.data = folder, data

    def vithub(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        """Runs `vithub` with its output captured, and checks the exit code."""
        return self._run([sys.executable, "-m", "vithub.scripts.command_line", *arguments], ok)

    def launched(self, processes: int, *arguments: str) -> str:
        """Runs `vithub finetune` as a launch of several processes on the CPU."""
        script = Path(__file__).parents[2] / "scripts" / "finetune_accelerate.py"
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
        return self._run([*launch, "--mixed_precision", "no", str(script), *arguments], (0,))

    def killed(self, run: Path, *arguments: str) -> None:
        """Runs `vithub finetune`, stops it by SIGTERM at its first checkpoint, and resumes it."""
        command = [sys.executable, "-m", "vithub.scripts.command_line", "finetune", *arguments]
        process = subprocess.Popen(command, cwd=self.folder, env=self._environment())
        while process.poll() is None and not list(run.glob("checkpoints/step-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait()
        self.vithub("finetune", *arguments, "--resume")

    def real(self, name: str) -> str:
        """The path of a real data set or of weights."""
        assert self.data is not None
        return str(self.data / name)

    def _run(self, command: list[str], ok: tuple[int, ...]) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self._environment(), capture_output=True, text=True)
        if done.returncode not in ok:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


DIGITS = ["--data", "digits", "--preset", "digits", "--batch-size", "128"]
SHORT = [*DIGITS, "--epochs", "2", "--set", "training.checkpoint_steps=4"]


def digits(jobs: Jobs) -> dict[str, str]:
    """A DeiT on digits for two epochs, and everything that is done with a run afterwards."""
    run = jobs.folder / "digits"
    jobs.vithub("finetune", *SHORT, "--output", "digits")
    jobs.vithub("predict", "digits", "--data", "digits", "--output", "labels", "--embeddings")
    jobs.vithub("convert", "digits", "timm", "--to", "timm")
    evaluated = json.loads(jobs.vithub("evaluate", "digits", "--json").splitlines()[-1])
    return {
        **run_prints(run),
        "labels": rows_print(jobs.folder / "labels"),
        "evaluated": text_print(plain(evaluated)),
        "timm": tensors_print(next((jobs.folder / "timm").glob("*.safetensors"))),
    }


def digits_by_trainer(jobs: Jobs) -> dict[str, str]:
    """The same training by transformers' `Trainer`."""
    jobs.vithub("finetune", *SHORT, "--front-end", "trainer", "--output", "trainer")
    return run_prints(jobs.folder / "trainer")


def digits_in_two_processes(jobs: Jobs) -> dict[str, str]:
    """The same training in two processes."""
    jobs.launched(2, *SHORT, "--output", "two")
    return run_prints(jobs.folder / "two")


def digits_killed(jobs: Jobs) -> dict[str, str]:
    """The same training, killed at its first checkpoint and resumed, on both front ends."""
    found = {}
    for front_end in ("accelerate", "trainer"):
        name = f"killed-{front_end}"
        jobs.killed(jobs.folder / name, *SHORT, "--front-end", front_end, "--output", name)
        found |= {f"{front_end} {key}": value for key, value in run_prints(jobs.folder / name).items()}
    return found


def taught(jobs: Jobs) -> dict[str, str]:
    """A DeiT that learns from the first run, with mixing, accumulation and EMA."""
    more = {
        "distillation.kind": "soft",
        "augmentation.mixup": 0.8,
        "training.accumulation": 2,
        "training.ema_decay": 0.9,
    }
    settings = [part for name, value in more.items() for part in ("--set", f"{name}={value}")]
    jobs.vithub("finetune", *DIGITS, "--max-steps", "8", "--teacher", "digits", "--output", "taught", *settings)
    return run_prints(jobs.folder / "taught")


def probe(jobs: Jobs) -> dict[str, str]:
    """A linear probe of the first run, on cached features."""
    arguments = ["--preset", "linear-probe", "--model", "digits", "--data", "digits", "--epochs", "2"]
    jobs.vithub("finetune", *arguments, "--output", "probe")
    return run_prints(jobs.folder / "probe")


def adapters(jobs: Jobs) -> dict[str, str]:
    """Low-rank adapters on the first run."""
    jobs.vithub("finetune", "--model", "digits", "--data", "digits", "--lora", "--max-steps", "4", "--output", "lora")
    return run_prints(jobs.folder / "lora")


def flowers(jobs: Jobs) -> dict[str, str]:
    """A pretrained ViT-S/14 on photos for a few steps, from a table and from a stream; its explanation."""
    base = ["--model", jobs.real("weights/vit_small_patch14"), "--data", jobs.real("data/flowers5")]
    base += ["--image-size", "56", "--batch-size", "16", "--max-steps", "4"]
    jobs.vithub("finetune", *base, "--output", "flowers")
    jobs.vithub("finetune", *base, "--streaming", "--output", "stream")
    streamed = {f"stream {name}": value for name, value in run_prints(jobs.folder / "stream").items()}
    return run_prints(jobs.folder / "flowers") | streamed


def cells(jobs: Jobs) -> dict[str, str]:
    """A DETR on blood cells for a few steps; its boxes."""
    values = ["--set", f"model.backbone={jobs.real('weights/tf_efficientnet_lite0')}", "--image-size", "96"]
    base = ["--preset", "detr-small-data", "--data", jobs.real("data/bccd"), "--max-steps", "4", *values]
    jobs.vithub("finetune", *base, "--output", "cells")
    jobs.vithub("predict", "cells", "--data", jobs.real("data/bccd"), "--output", "boxes", "--threshold", "0")
    return {**run_prints(jobs.folder / "cells"), "boxes": rows_print(jobs.folder / "boxes")}


JOBS: dict[str, tuple[Job, bool]] = {
    "digits": (digits, False),
    "digits by Trainer": (digits_by_trainer, False),
    "digits in two processes": (digits_in_two_processes, False),
    "digits killed and resumed": (digits_killed, False),
    "taught": (taught, False),
    "linear probe": (probe, False),
    "adapters": (adapters, False),
    "flowers": (flowers, True),
    "cells": (cells, True),
}


def run_prints(run: Path) -> dict[str, str]:
    """Hashes of a finished run's weights, metrics and image processor."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    processor = json.loads((run / "preprocessor_config.json").read_text(encoding="utf-8"))
    return {
        "weights": tensors_print(run / "model.safetensors"),
        "metrics": text_print(plain(metrics)),
        "processor": text_print(processor),
        "files": ", ".join(sorted(entry.name for entry in run.iterdir())),
    }


def tensors_print(file: Path) -> str:
    """A hash of every tensor's name, type, shape and bytes."""
    from safetensors.numpy import load_file

    total = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        total.update(tensor.tobytes())
    return total.hexdigest()


def rows_print(folder: Path) -> str:
    """A hash of the rows of all Parquet files of a folder, in order."""
    import pyarrow.parquet as pq

    total = hashlib.sha256()
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            total.update(json.dumps(row, sort_keys=True, default=str).encode())
    return total.hexdigest()


def text_print(content: Any) -> str:
    """A hash of JSON data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plain(content: Any) -> Any:
    """JSON data without what differs between two equal runs."""
    if isinstance(content, dict):
        return {name: plain(value) for name, value in content.items() if name not in VOLATILE}
    return [plain(value) for value in content] if isinstance(content, list) else content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real photos and weights")
    parser.add_argument("--out", type=Path, help="file for the hashes")
    parser.add_argument("--compare", type=Path, help="file of earlier hashes to compare with")
    parser.add_argument("--keep", type=Path, help="empty folder for the runs  [default: a temporary one]")
    given = parser.parse_args()
    earlier = json.loads(given.compare.read_text(encoding="utf-8")) if given.compare else {}
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        jobs = Jobs(given.keep or Path(temporary), given.data and given.data.resolve())
        for name, (job, needs_data) in JOBS.items():
            if needs_data and given.data is None:
                sys.stderr.write(f"{name}: left out, as --data is not given\n")
                continue
            begun = time.perf_counter()
            try:
                found[name] = job(jobs)
            except (RuntimeError, OSError) as error:  # the others are still of use
                found[name] = {"failed": "yes"}
                sys.stderr.write(f"{name}: FAILED: {str(error)[-400:]}\n")
                continue
            changed = [key for key in earlier.get(name, {}) if found[name].get(key) != earlier[name][key]]
            verdict = f"CHANGED: {', '.join(changed)}" if changed else "equal" if earlier else "recorded"
            sys.stderr.write(f"{name}: {verdict} ({time.perf_counter() - begun:.0f} s)\n")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(any(found[name] != earlier[name] for name in found if name in earlier))


if __name__ == "__main__":
    sys.exit(main())
