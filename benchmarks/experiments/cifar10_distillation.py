"""CIFAR-10 from scratch: a small DeiT without a teacher, and with distillation through its distillation token.

    python benchmarks/experiments/cifar10_distillation.py --data cifar10 --teacher resnet56_cifar10 --arms none &
    python benchmarks/experiments/cifar10_distillation.py --data cifar10 --teacher resnet56_cifar10 --arms teacher

The teacher is a ResNet of He et al. for CIFAR-10, given to `vithub.finetune` as a module; it was trained on all 50,000
images, so it knows more than the images that the student gets. All arms have the same model (both tokens, both heads,
whose outputs are averaged), seed, images, epochs and machine; `teacher` is hard distillation, `soft` learns from the
teacher's probabilities at temperature 3; without a teacher both heads learn the labels. Validation
images are 1,000 that are in nobody's training subset; the test split is looked at once, after the last epoch.

Each cell (budget, arm, seed) is a process of its own on one thread and is written when it ends; a second start goes on
with the cells that are missing. Times are of training and its validations; run the arms side by side, as above, so that
whatever else the machine does slows both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "initializer_range": 0.1}
MILD = {"augmentation.crop": "padded", "augmentation.rand_augment": None, "augmentation.random_erasing": 0.0}
STRONG = MILD | {
    "augmentation.rand_augment": "rand-m9-mstd0.5-inc1",
    "augmentation.random_erasing": 0.25,
    "augmentation.mixup": 0.8,
    "augmentation.cutmix": 1.0,
}
BUDGETS: dict[str, dict[str, Any]] = {
    "scarce": {"images": 500, "epochs": 100, "values": MILD},
    "few": {"images": 2_000, "epochs": 25, "values": MILD},
    "many": {"images": 10_000, "epochs": 5, "values": MILD},
    "few-strong": {"images": 2_000, "epochs": 25, "values": STRONG},
    "many-strong": {"images": 10_000, "epochs": 5, "values": STRONG},
    "many-long": {"images": 10_000, "epochs": 25, "values": MILD},
}
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "teacher": {},
    "soft": {"distillation.kind": "soft", "distillation.temperature": 3.0},
}
VALIDATION_IMAGES = 1_000
SUBSET_SEED = 0


def subset(data: str, images: int) -> Any:
    """The training images of a budget, 1,000 others to validate, and the whole test split.

    The subsets do not depend on the seed of a training, and a smaller one is part of a larger one.
    """
    from datasets import DatasetDict, load_dataset

    splits = load_dataset(data)
    shuffled = splits["train"].shuffle(seed=SUBSET_SEED)
    return DatasetDict(
        train=shuffled.select(range(VALIDATION_IMAGES, VALIDATION_IMAGES + images)),
        validation=shuffled.select(range(VALIDATION_IMAGES)),
        test=splits["test"],
    )


def run_cell(data: str, teacher: str, budget: str, arm: str, seed: int, epochs: int | None = None) -> dict[str, Any]:
    """Trains one cell."""
    from cifar_resnet import NAMES, load_cifar_resnet

    import vithub

    chosen = BUDGETS[budget]
    splits = subset(data, chosen["images"])
    names = tuple(splits["train"].features["label"].names)
    if names != NAMES:
        raise SystemExit(f"the teacher's classes are {NAMES}, in this order; the data's are {names}")
    values = {
        "model.image_size": 32,
        **{f"model.fields.{name}": value for name, value in MODEL.items()},
        "training.batch_size": 64,
        "training.lr": 1e-3,
        "training.warmup": 0.1,
        "training.warmup_unit": "ratio",
        "training.publish": "last",
        "training.trackers": [],
        "evaluation.crop_ratio": 1.0,
        "evaluation.batch_size": 250,
        "data.workers": 1,
        **chosen["values"],
        **ARMS[arm],
    }
    with tempfile.TemporaryDirectory() as folder:
        run = vithub.finetune(
            "deit-ti/4", splits, Path(folder) / "run", preset="from-scratch-small", seed=seed,
            epochs=epochs or chosen["epochs"], values=values,
            teacher=None if arm == "none" else load_cifar_resnet(teacher),
        )  # fmt: skip
    history = [
        {name: round(entry[name], 4) for name in ("epoch", "train_loss", "validation_accuracy", "seconds")}
        for entry in run.metrics["history"]
    ]
    return {
        "accuracy": run.metrics["test"]["accuracy"],
        "seconds": run.metrics["seconds"],
        "parameters": run.metrics["parameters"],
        "precision": run.metrics["precision"],
        "history": history,
    }


def teacher_accuracy(data: str, teacher: str) -> float:
    """Share of the test split that the teacher answers rightly, in bf16, as it teaches."""
    import torch
    from cifar_resnet import load_cifar_resnet
    from vithub.data.image_processing import build_image_processor, pixel_format
    from vithub.data.labelled.dataset import EvaluationTransform
    from vithub.training.tasks.classification.teachers import Teacher

    processor = build_image_processor((32, 32), crop_ratio=1.0)
    transform = EvaluationTransform(processor)
    guide = Teacher(load_cifar_resnet(teacher), pixel_format(processor), bf16=True)
    test, right = subset(data, 1)["test"], 0
    for first in range(0, len(test), 250):
        rows = test[first : first + 250]
        answers = guide.logits(torch.stack([transform(image.convert("RGB")) for image in rows["image"]])).argmax(-1)
        right += int((answers == torch.tensor(rows["label"])).sum())
    return right / len(test)


def main() -> None:
    """Trains the cells that are missing, and writes the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or Hub id of CIFAR-10 with columns image and label")
    parser.add_argument("--teacher", required=True, help="folder with the model.safetensors of the teacher")
    parser.add_argument("--budgets", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["none", "teacher"])
    parser.add_argument("--json", default="benchmarks/results/cifar10_distillation.json")
    parser.add_argument("--epochs", type=int, help="instead of the budget's, for a trial of the time")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        cell = run_cell(
            options.data, options.teacher, options.budgets[0], options.arms[0], options.seeds[0], options.epochs
        )
        print("RESULT " + json.dumps(cell))
        return
    file = Path(options.json)
    for budget in options.budgets:
        for seed in options.seeds:
            for arm in options.arms:
                name = f"{budget}/{arm}/{seed}"
                if name in read(file)["cells"]:
                    continue
                cell = in_a_process(options, budget, arm, seed)
                found = read(file)  # the other arm may have written meanwhile
                chosen = {key: BUDGETS[budget][key] for key in ("images", "epochs")}
                found["cells"][name] = {"budget": budget, "arm": arm, "seed": seed, **chosen, **cell}
                write(found, file)
                print(f"{name}: {100 * cell['accuracy']:.2f} % in {cell['seconds']:.0f} s", flush=True)
    found = read(file)
    if "teacher_accuracy" not in found:
        found["teacher_accuracy"] = teacher_accuracy(options.data, options.teacher)
        write(found, file)
    for line in summary(found["cells"]):
        print(line)


def in_a_process(options: argparse.Namespace, budget: str, arm: str, seed: int) -> dict[str, Any]:
    """One cell, trained by a process of its own, on one thread."""
    command = [sys.executable, __file__, "--one", "--data", options.data, "--teacher", options.teacher]
    command += ["--budgets", budget, "--arms", arm, "--seeds", str(seed)]
    command += ["--epochs", str(options.epochs)] if options.epochs else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(done.stderr)
    cell: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return cell


def read(file: Path) -> dict[str, Any]:
    """What is measured so far."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"cells": {}}
    return found


def write(found: dict[str, Any], file: Path) -> None:
    """Beside the file, then renamed."""
    staging = file.with_suffix(f".{os.getpid()}")
    staging.write_text(json.dumps(found, indent=1) + "\n")
    staging.replace(file)


def summary(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Mean and standard deviation by budget and arm."""
    lines = []
    for budget in BUDGETS:
        for arm in ARMS:
            runs = [cell for cell in cells.values() if (cell["budget"], cell["arm"]) == (budget, arm)]
            if not runs:
                continue
            accuracies = [100 * run["accuracy"] for run in runs]
            spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
            seconds = statistics.mean(run["seconds"] for run in runs)
            lines.append(
                f"{budget:>12} {arm:>8}: {statistics.mean(accuracies):.1f} +- {spread:.1f} % "
                f"({len(runs)} seeds), {seconds:.0f} s"
            )
    return lines


if __name__ == "__main__":
    main()
