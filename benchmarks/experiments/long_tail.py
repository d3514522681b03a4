"""Macro F1 with each answer to imbalanced classes, on a long-tailed CIFAR-10 of 12,406 photos, 5,000 to 50 a class.

    python benchmarks/experiments/long_tail.py --data cifar10 --model vit_small_patch14

The rows are those of the list beside the results: class c keeps 5000 * 100 ** (-c / 9) photos, drawn with seed 0
(https://arxiv.org/abs/1901.05555, section 5.2). A linear classifier learns on the features of the frozen backbone,
which are computed once, so that the runs differ by the answer and the seed alone. Each run uses the loss, the class
weights and the order of a training with that recipe, and is judged after the last epoch on 200 test photos of a class.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict, load_dataset
from vithub.data.image_processing import build_image_processor
from vithub.data.labelled.mixing import targets_from_labels
from vithub.data.samplers import BalancedOrder, TrainingOrder
from vithub.training.recipe.presets import preset as named_recipe
from vithub.training.tasks.classification.imbalance import ClassBalance
from vithub.training.tasks.classification.losses import TrainingLoss
from vithub.training.tasks.classification.metrics.single_label import ClassificationMetrics

import vithub

LARGEST, RATIO, TEST_IMAGES, EPOCHS, BATCH = 5000, 100, 200, 30, 256
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


def features_of(data: DatasetDict, model: str, image_size: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pooled features (N, D) and labels (N,) of each split."""
    backbone = vithub.load(model, task="backbone", image_size=image_size, dtype=torch.float32)
    processor = build_image_processor((image_size, image_size), crop_ratio=1.0)
    found = {}
    with torch.inference_mode():
        for split, table in data.items():
            parts = []
            for first in range(0, len(table), 64):
                photos = [image.convert("RGB") for image in table[first : first + 64]["image"]]
                pixels = processor(photos, return_tensors="pt")["pixel_values"]
                parts.append(backbone(pixels).pooler_output)
            found[split] = torch.cat(parts).clone(), torch.tensor(table["label"])
            sys.stderr.write(f"features of {len(table)} photos of {split}\n")
    return found


def train(features: dict[str, tuple[torch.Tensor, torch.Tensor]], arm: str, seed: int) -> dict[str, Any]:
    """Figures of one run on the test split."""
    recipe = named_recipe("linear-probe").with_values({"seed": seed, **ARMS[arm]})
    rows, labels = features["train"]
    balance = ClassBalance(recipe, [str(n) for n in range(10)], labels.bincount().tolist(), len(labels), False)
    loss = TrainingLoss(recipe.training, recipe.distillation, False, False, balance.weights, balance.prior)
    kind = BalancedOrder(labels.tolist(), BATCH, seed) if recipe.data.sampler == "balanced" else None
    order = kind or TrainingOrder(len(labels), BATCH, seed)
    torch.manual_seed(seed)
    head = torch.nn.Linear(rows.shape[1], 10)
    torch.nn.init.trunc_normal_(head.weight, std=0.02)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01)
    steps = EPOCHS * order.steps_per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        chosen = [key.index for key in order.batch(step)]
        loss.base(head(rows[chosen]), targets_from_labels(labels[chosen], 10)).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    metrics = ClassificationMetrics(10)
    with torch.inference_mode():
        metrics.update(head(features["test"][0]), features["test"][1])
    figures = metrics.compute()
    recalls = [row["recall"] for row in metrics.per_class([str(n) for n in range(10)])]
    chosen_figures = {name: figures[name] for name in ("macro_f1", "accuracy", "expected_calibration_error")}
    return {"arm": arm, "seed": seed, **chosen_figures, "recalls": recalls}


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
    features = features_of(splits(options.data), options.model, options.image_size)
    runs = [train(features, arm, seed) for seed in options.seeds for arm in ARMS]
    options.output.write_text("".join(json.dumps(run) + "\n" for run in runs))
    sys.stdout.write(table(runs) + "\n")


if __name__ == "__main__":
    main()
