"""Accuracy on CIFAR-10 with 1 % and 10 % of the labels: from scratch, and from backbones pretrained without labels.

    python benchmarks/experiments/pretraining.py --data cifar10 --seconds 60 --seeds 0
    python benchmarks/experiments/pretraining.py --table

Every arm gets the same CPU seconds of training: a pretrained one spends `--seconds` on images without labels and then
`FINETUNING` on labelled ones, the one from scratch both on labelled images. Steps are planned from the CPU seconds
that a step takes in a run of some steps. All choose nothing on test images: each publishes its last weights.
Results are appended as JSON lines, and what is there already is not run again.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict, load_dataset
from vithub.training.runtime.progress import QuietReporter

import vithub

RESULTS = Path(__file__).parents[1] / "results" / "pretraining.jsonl"
FINETUNING = {0.01: 10.0, 0.1: 25.0}  # CPU seconds by the share of the images that have labels
MODEL = {
    "model.source": "vit-ti/4", "model.image_size": 32,
    "model.fields": {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 6},
}  # fmt: skip
SHARED = {
    "data.workers": 0, "training.trackers": [], "training.keep_checkpoints": 0,
    "training.publish": "last", "evaluation.crop_ratio": 1.0, "evaluation.batch_size": 250,
}  # fmt: skip
LABELLED = {
    "augmentation.crop": "random_resized", "augmentation.scale": [0.35, 1.0], "augmentation.color_jitter": 0.2,
    "training.batch_size": 64, "training.lr": 1e-3, "training.warmup": 0.1, "training.warmup_unit": "ratio",
    "training.clip_norm": 1.0,
}  # fmt: skip
UNLABELLED = {
    "training.batch_size": 128, "training.lr": 1.5e-3, "training.lr_batch": None, "training.warmup": 0.1,
    "training.warmup_unit": "ratio", "training.clip_norm": 3.0, "data.validation_fraction": 0.02,
    "augmentation.scale": [0.35, 1.0],
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "dino": {
        "pretraining.prototypes": 1024,
        "pretraining.projection_width": 256,
        "pretraining.bottleneck_width": 128,
        "pretraining.local_crops": 2,
        "pretraining.local_size": 16,
    },
    "features": {},
    "mae": {"pretraining.decoder_width": 64, "pretraining.decoder_layers": 2, "pretraining.decoder_heads": 4},
    "simmim": {"pretraining.mask_unit": 2},
}
MANY_EPOCHS = 100_000  # `max_steps` ends each run


class EnoughError(Exception):
    """Ends a run whose steps were timed."""


class CpuClock(QuietReporter):
    """Reporter that keeps the CPU seconds of this process after each step, and ends the run after 13."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def advance(self, amount: int = 1, **figures: float) -> None:  # noqa: ARG002
        """Notes the time of a step."""
        if "loss" in figures:
            self.times.append(time.process_time())
        if len(self.times) == 13:
            raise EnoughError


def steps_for(seconds: float, train: Callable[..., Any]) -> int:
    """Number of steps that take so many CPU seconds, by the median of ten steps."""
    clock = CpuClock()
    with tempfile.TemporaryDirectory() as folder, suppress(EnoughError):
        train(Path(folder) / "run", 1000, clock)
    differences = np.diff(clock.times)[2:]
    return max(10, round(seconds / statistics.median(differences)))


def parts(folder: Path, share: float, seed: int, test_images: int) -> DatasetDict:
    """The labelled part of the training split, the same share of each class, and test images."""
    whole = photos(folder)
    labels, draws = np.asarray(whole["train"]["label"]), np.random.default_rng(seed)
    count = round(share * len(labels) / 10)
    rows = np.concatenate([draws.permutation(np.flatnonzero(labels == one))[:count] for one in range(10)])
    others = np.setdiff1d(np.arange(len(labels)), rows)[:20]  # few, as nothing is chosen on them
    return DatasetDict({
        "train": whole["train"].select(np.sort(rows)), "validation": whole["train"].select(others),
        "test": whole["test"].select(range(min(test_images, len(whole["test"])))),
    })  # fmt: skip


def photos(folder: Path) -> DatasetDict:
    """CIFAR-10 as it is."""
    files = {split: str(next(folder.glob(f"{split}-*.parquet"))) for split in ("train", "test")}
    return load_dataset("parquet", data_files=files)


def labelled_run(
    data: DatasetDict, seed: int, precision: str, begun: Any, output: Path, steps: int, reporter: Any = None
) -> Any:
    """Trains a classifier for so many steps, from scratch or from a backbone."""
    start = MODEL if begun is None else {"model.source": str(begun), "training.layer_decay": 0.75}
    length = {"training.epochs": MANY_EPOCHS, "training.max_steps": steps}
    values = {**SHARED, **LABELLED, **start, **length, "seed": seed, "training.precision": precision}
    preset = "from-scratch-small" if begun is None else "finetune"
    more = {"augmentation.rand_augment": None, "augmentation.random_erasing": 0.0} if begun is None else {}
    return vithub.finetune(data=data, output=output, preset=preset, values=values | more, reporter=reporter)


def unlabelled_run(
    data: Any, seed: int, precision: str, arm: str, teacher: str | None, output: Path, steps: int, reporter: Any = None
) -> Any:
    """Pretrains a backbone for so many steps."""
    values = {**SHARED, **UNLABELLED, **MODEL, **ARMS[arm], "seed": seed, "training.precision": precision}
    values["training.epochs"] = MANY_EPOCHS
    options = {"teacher": teacher} if arm == "features" else {}
    return vithub.pretrain(
        data=data, output=output, method=arm, max_steps=steps, values=values, reporter=reporter, **options
    )


def teacher_at(teacher: Path, size: int, folder: Path) -> str:
    """Copy of a teacher's folder that takes images of so many pixels: CIFAR's have no more detail than the student."""
    shutil.copytree(teacher, folder)
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content |= {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    file.write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


def probe(data: DatasetDict, seed: int, backbone: Path, output: Path) -> Any:
    """Trains a linear classifier on the features of the frozen backbone."""
    values = {**SHARED, "seed": seed, "training.epochs": 50, "training.precision": "fp32"}
    return vithub.finetune(str(backbone), data, output, preset="linear-probe", values=values)


def measured(options: argparse.Namespace, arm: str, seed: int, done: set[tuple[str, int, float, str]]) -> None:
    """Runs what is left of an arm with a seed, and appends its results."""
    left = [(share, how) for share in FINETUNING for how in ("linear probe", "finetuned")
            if (arm, seed, share, how) not in done and (arm != "scratch" or how == "finetuned")]  # fmt: skip
    if not left:
        return
    with tempfile.TemporaryDirectory() as place:
        folder, about, backbone = Path(place), {}, None
        if arm != "scratch":
            data, backbone = DatasetDict({"train": photos(options.data)["train"]}), folder / "pretrained"
            teacher = None
            if arm == "features":
                teacher = teacher_at(options.teacher, options.teacher_size, folder / "teacher")

            def pretrain(output: Path, steps: int, reporter: Any = None) -> Any:
                return unlabelled_run(data, seed, options.precision, arm, teacher, output, steps, reporter)

            steps = steps_for(options.seconds, pretrain)
            begun = time.process_time()
            run = pretrain(backbone, steps)
            about = {"pretraining_steps": steps, "pretraining_seconds": round(time.process_time() - begun, 1),
                     "effective_rank": run.metrics["validation"]["effective_rank"]}  # fmt: skip
        for share, how in left:
            data = parts(options.data, share, seed, options.test_images)
            begun = time.process_time()
            if how == "linear probe":
                assert backbone is not None
                run, steps = probe(data, seed, backbone, folder / f"probe-{share}"), None
            else:

                def finetune(output: Path, steps: int, reporter: Any = None) -> Any:
                    return labelled_run(data, seed, options.precision, backbone, output, steps, reporter)  # noqa: B023

                seconds = FINETUNING[share] + (0 if backbone else options.seconds)
                steps = steps_for(seconds, finetune)
                begun = time.process_time()
                run = finetune(folder / f"tuned-{share}", steps)
            result = {
                "arm": arm, "seed": seed, "labels": share, "labelled_images": len(data["train"]), "how": how,
                "accuracy": run.metrics["test"]["accuracy"], "test_images": len(data["test"]), "steps": steps,
                "seconds": round(time.process_time() - begun, 1), "budget": options.seconds,
                "precision": options.precision, **about,
            }  # fmt: skip
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


def read(file: Path) -> list[dict[str, Any]]:
    """Results so far."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def table(file: Path) -> None:
    """Prints the test accuracy of each arm, the mean over its seeds."""
    groups: dict[tuple[str, float, str], list[float]] = {}
    for row in read(file):
        groups.setdefault((row["arm"], row["labels"], row["how"]), []).append(100 * row["accuracy"])
    for (arm, labels, how), values in sorted(groups.items(), key=lambda item: (item[0][1], item[0][2], item[0][0])):
        shown = ", ".join(f"{value:.1f}" for value in values)
        sys.stdout.write(
            f"{100 * labels:3.0f} % of the labels  {how:12s}  {arm:9s} {statistics.mean(values):5.1f} %  ({shown})\n"
        )


def main() -> None:
    """Runs what is not measured yet, or prints what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("cifar10"), help="folder of CIFAR-10 as Parquet files")
    parser.add_argument("--teacher", type=Path, help="folder of a model for the arm of features; without it left out")
    parser.add_argument("--teacher-size", type=int, default=112, help="pixels that it is given (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of pretraining (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=["scratch", *ARMS], default=["scratch", *ARMS])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of JSON lines (default: %(default)s)")
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    options = parser.parse_args()
    if options.table:
        table(options.results)
        return
    done = {(row["arm"], row["seed"], row["labels"], row["how"]) for row in read(options.results)}
    for seed in options.seeds:
        for arm in options.arms:
            if arm != "features" or options.teacher is not None:
                measured(options, arm, seed, done)


if __name__ == "__main__":
    main()
