"""Accuracy of single changes to the preset `finetune` on few photos, at equal epochs and at equal computing time.

    python benchmarks/experiments/small_data.py --data flowers5 --weights vit_small_patch14 --image-size 112
    python benchmarks/experiments/small_data.py --data cifar10 --images 500 --weights vit_small_patch14 --image-size 56
    python benchmarks/experiments/small_data.py --table

Each run makes the steps of `vithub finetune` and judges the last weights, or their average, in the precision of the
training: every image once as it is, and once as the mean over it and its mirror image. Changes are compared by the
validation split; the test split is recorded beside it. No checkpoints are written, and `seconds` are CPU seconds of the
steps and of what comes before them (features for the head). Of CIFAR-10 a part is drawn with equally many images of
each class, 1,000 others validate, and 2,000 test images judge. Runs that are in the file of results are left out.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict, load_dataset
from vithub.data.labelled.dataset import collate
from vithub.training.loop.accelerate_loop import AccelerateLoop
from vithub.training.loop.interruption import StopRequest
from vithub.training.loop.step import StepEnd
from vithub.training.recipe.presets import preset
from vithub.training.runtime.progress import QuietReporter
from vithub.training.tasks.registry import build_task

RESULTS = Path(__file__).parents[1] / "results" / "small_data.jsonl"
HEAD = {"training.head_first_epochs": 50}
BOTH = {"model.fields.pool": "cls+mean"}
ARMS: dict[str, dict[str, Any]] = {
    "preset": {},
    "head first": HEAD,
    "CLS and mean": BOTH,
    "bf16 throughout": {"training.master_weights": True},
    "EMA 0.95": {"training.ema_decay": 0.95},
    "batches of 16": {"training.batch_size": 16},
    "rate x 2": {"training.lr": 6e-4},
    "rate / 2": {"training.lr": 1.5e-4},
    "layer decay 0.65": {"training.layer_decay": 0.65},
    "layer decay 0.85": {"training.layer_decay": 0.85},
    "whole centre": {"evaluation.crop_ratio": 1.0},
    "no jitter": {"augmentation.color_jitter": 0.0},
    "stochastic depth": {"model.fields.drop_path_rate": 0.1},
}


def splits(options: argparse.Namespace) -> DatasetDict:
    """The photos of a folder; of more than `--images` training images a part, with 1,000 others to validate."""
    files = {file.name.partition("-")[0]: str(file) for file in sorted(options.data.glob("*.parquet"))}
    whole = load_dataset("parquet", data_files=files)
    if options.images is None:
        return whole
    labels, draws = np.asarray(whole["train"]["label"]), np.random.default_rng(0)
    classes = int(labels.max()) + 1
    rows = np.stack([draws.permutation(np.flatnonzero(labels == number)) for number in range(classes)])
    count = options.images // classes
    return DatasetDict({
        "train": whole["train"].select(np.sort(rows[:, :count].ravel())),
        "validation": whole["train"].select(np.sort(rows[:, -1000 // classes :].ravel())),
        "test": whole["test"].select(range(2000)),
    })  # fmt: skip


def run(options: argparse.Namespace, data: DatasetDict, arm: str, seed: int) -> dict[str, Any]:
    """Trains with the changes of an arm, several of which are joined by " + ", and judges the weights."""
    changes: dict[str, Any] = {}
    for name in arm.split(" + "):
        changes |= ARMS[name]
    recipe = preset("finetune").with_values({
        "model.source": str(options.weights), "model.image_size": options.image_size, "data.workers": 0,
        "data.cache": "memory", "training.trackers": [], "training.epochs": options.epochs, "seed": seed,
        "training.precision": "bf16", "data.on_leakage": "warn",
    } | changes)  # fmt: skip
    task = build_task(recipe, data)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        loop = AccelerateLoop(task, Path(folder), QuietReporter())
        end = StepEnd(task, loop.record, loop.accelerator, QuietReporter(), StopRequest())
        loop.model.train()
        end.begin_epoch(0, 0, task.total_steps)
        loader = iter(task.train_loader())
        for step in range(task.total_steps):
            loop.step(loader, step, end)
        seconds = time.process_time() - begun
    found = {split: judged(task, loop, split) for split in ("validation", "test")}
    tail = loop.record.losses[-10:]
    return {"seconds": round(seconds, 1), "train_loss": round(statistics.mean(tail), 4), **found}


@torch.inference_mode()
def judged(task: Any, loop: AccelerateLoop, split: str) -> dict[str, float]:
    """Accuracy and loss on a split, as it is and with mirror images."""
    images, model = task.evaluation_images(split), loop.record.judged.eval()
    plain, mirrored, labels = [], [], []
    for first in range(0, len(images), 100):
        batch = images.finish(collate([images[row] for row in range(first, min(first + 100, len(images)))]))
        pixels = batch["pixel_values"]
        with loop.record.autocast():
            logits, others = (model(pixel_values=seen).logits.float() for seen in (pixels, pixels.flip(-1)))
        plain.append(logits.log_softmax(-1))
        mirrored.append(torch.stack([logits.softmax(-1), others.softmax(-1)]).mean(0).log())
        labels.append(batch["labels"])
    truth, figures = torch.cat(labels), {}
    for name, parts in (("", plain), ("_mirrored", mirrored)):
        scores = torch.cat(parts)
        figures[f"accuracy{name}"] = (scores.argmax(-1) == truth).float().mean().item()
        figures[f"loss{name}"] = round(torch.nn.functional.nll_loss(scores, truth).item(), 4)
    return figures


def read(file: Path) -> list[dict[str, Any]]:
    """Results so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown table of the arms by data set, size and epochs: means and standard deviations over the seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["data"], row["images"], row["image_size"], row["epochs"], row["arm"])
        groups.setdefault(key, []).append(row)
    lines = ["| data | images | pixels | epochs | change | validation | its loss | test | mirrored | seeds | CPU |"]
    lines.append("|" + "---|" * 11)
    for (data, images, size, epochs, arm), of_arm in groups.items():
        cells = [
            _spread([100 * one["validation"]["accuracy"] for one in of_arm], " %"),
            f"{statistics.mean(one['validation']['loss'] for one in of_arm):.3f}",
            _spread([100 * one["test"]["accuracy"] for one in of_arm], " %"),
            _spread([100 * one["test"]["accuracy_mirrored"] for one in of_arm], " %"),
            str(len(of_arm)),
            f"{statistics.mean(one['seconds'] for one in of_arm):.0f} s",
        ]
        lines.append(f"| {data} | {images} | {size} | {epochs} | {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], unit: str) -> str:
    spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}{unit}"


def main() -> None:
    """Runs what is not measured yet, or prints what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Parquet files, named by their splits")
    parser.add_argument("--images", type=int, help="training images, the same number of each class; default: all")
    parser.add_argument("--weights", type=Path, help="folder of the pretrained backbone")
    parser.add_argument("--image-size", type=int, default=112, help="pixels (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help='names, or several joined by " + "')
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of JSON lines (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    options = parser.parse_args()
    if options.table:
        sys.stdout.write(table(read(options.results)) + "\n")
        return
    torch.set_num_threads(1)
    data = splits(options)
    for seed in options.seeds:
        for arm in options.arms:
            about = {
                "data": options.data.name, "images": len(data["train"]), "image_size": options.image_size,
                "epochs": options.epochs, "arm": arm, "seed": seed,
            }  # fmt: skip
            if any(about.items() <= row.items() for row in read(options.results)):
                continue
            result = about | run(options, data, arm, seed)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
