"""Macro F1 with each answer to imbalanced classes, on a long-tailed CIFAR-10 of 12,406 photos, 5,000 to 50 a class.

    python benchmarks/experiments/long_tail.py --data cifar10 --model vit_small_patch14

The rows are those of the list beside the results: class c keeps 5000 * 100 ** (-c / 9) photos, drawn with seed 0
(https://arxiv.org/abs/1901.05555, section 5.2). A linear classifier learns on the features of the frozen backbone, so
that all runs see the same features and differ by the answer and the seed alone; it is judged on 200 test photos of each
class. Runs that the file of results has already are not made again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from datasets import DatasetDict, load_dataset

import vithub

LARGEST, RATIO, TEST_IMAGES = 5000, 100, 200
RESULTS = Path(__file__).parents[1] / "results"
ROWS = RESULTS / "long_tailed_cifar10_rows.json"
ARMS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "class weights, balanced": {"training.class_weights": "balanced"},
    "class weights, sqrt": {"training.class_weights": "sqrt"},
    "balanced sampler": {"data.sampler": "balanced"},
    "logit adjustment, tau 1": {"training.logit_adjustment": 1.0},
    "focal loss, gamma 2": {"training.loss": "focal"},
}


def long_tailed_rows(labels: np.ndarray) -> list[int]:
    """Rows of the long-tailed training split, in order."""
    draws, classes = np.random.default_rng(0), int(labels.max()) + 1
    sizes = [int(LARGEST * RATIO ** (-number / (classes - 1))) for number in range(classes)]
    rows = [draws.permutation(np.flatnonzero(labels == number))[:size] for number, size in enumerate(sizes)]
    return sorted(int(row) for row in np.concatenate(rows))


def splits(folder: Path) -> DatasetDict:
    """The long-tailed training split and a test split with equally many photos of each class."""
    files = {split: str(next(folder.glob(f"{split}-*.parquet"))) for split in ("train", "test")}
    whole = load_dataset("parquet", data_files=files)
    rows = long_tailed_rows(np.asarray(whole["train"]["label"]))
    if json.loads(ROWS.read_text()) != rows:
        raise SystemExit(f"{folder} holds other photos than those of {ROWS.name}")
    labels = np.asarray(whole["test"]["label"])
    test = np.concatenate([np.flatnonzero(labels == number)[:TEST_IMAGES] for number in range(10)])
    return DatasetDict({"train": whole["train"].select(rows), "test": whole["test"].select(test)})


def train(data: DatasetDict, model: str, arm: str, seed: int, image_size: int) -> dict[str, Any]:
    """Figures of one run on the test split."""
    values = {
        "training.epochs": 30, "training.batch_size": 256, "training.keep_checkpoints": 0, "training.trackers": [],
        "training.publish": "last", "evaluation.crop_ratio": 1.0, **ARMS[arm],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = vithub.finetune(
            model, data, Path(folder) / "run", preset="linear-probe", image_size=image_size, seed=seed, values=values
        )
    recalls = [row["recall"] for row in run.metrics["per_class"]]
    figures = {name: run.metrics["test"][name] for name in ("macro_f1", "accuracy", "expected_calibration_error")}
    return {"arm": arm, "seed": seed, **figures, "recalls": recalls, "seconds": run.metrics["seconds"]}


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown table of mean and standard deviation over the seeds, by arm."""
    lines = ["| | macro F1 | accuracy | recall of the three largest | of the three smallest | calibration error |"]
    lines.append("|---|---|---|---|---|---|")
    for arm in ARMS:
        of_arm = [run for run in runs if run["arm"] == arm]
        columns = [
            [run["macro_f1"] for run in of_arm],
            [run["accuracy"] for run in of_arm],
            [mean(run["recalls"][:3]) for run in of_arm],
            [mean(run["recalls"][-3:]) for run in of_arm],
            [run["expected_calibration_error"] for run in of_arm],
        ]
        cells = [f"{100 * mean(c):.1f} +- {100 * stdev(c):.1f} %" if len(c) > 1 else "" for c in columns]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains every arm with each seed and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10's Parquet files")
    parser.add_argument("--model", required=True, help="folder of the pretrained backbone")
    parser.add_argument("--image-size", type=int, default=56, help="pixels (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write-rows", action="store_true", help="write the list of rows and end")
    parser.add_argument("--output", type=Path, default=RESULTS / "long_tail.jsonl")
    options = parser.parse_args()
    if options.write_rows:
        train_file = str(next(options.data.glob("train-*.parquet")))
        labels = load_dataset("parquet", data_files=train_file)["train"]["label"]
        ROWS.write_text(json.dumps(long_tailed_rows(np.asarray(labels)), separators=(",", ":")) + "\n")
        return
    data = splits(options.data)
    lines = options.output.read_text().splitlines() if options.output.is_file() else []
    runs = [json.loads(line) for line in lines]
    for seed in options.seeds:
        for arm in ARMS:
            if any(run["arm"] == arm and run["seed"] == seed for run in runs):
                continue
            runs.append(train(data, options.model, arm, seed, options.image_size))
            with options.output.open("a") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    sys.stdout.write(table(runs) + "\n")


if __name__ == "__main__":
    main()
