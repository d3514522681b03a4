"""Finetuning on flowers5: our `finetune` preset against the plain example recipe of transformers, equal epochs.

    python benchmarks/experiments/flowers5.py --data flowers5 --weights vit_small_patch14 --seeds 0 1 2

The plain recipe is what transformers' image classification example does: `Trainer`, AdamW at 5e-5 with linear decay and
no warm-up, batches of 8, random resized crop and flip, the last epoch. Both compute in bf16 where the machine has it,
and both are judged on the test split, which neither sees before, in fp32, without test-time choices. Each training is a
process of its own; they alternate, and runs that are in the file of results are left out. Times are of training and its
validations, not of starting up.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def plain(data: str, weights: str, seed: int, epochs: int) -> dict[str, float]:
    """The example recipe, with nothing of ours in it."""
    import torch
    from datasets import load_dataset
    from torchvision.transforms import v2
    from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    splits = load_dataset(data)
    label = next(name for name, feature in splits["train"].features.items() if hasattr(feature, "names"))
    names = splits["train"].features[label].names
    normalise = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    train = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), *normalise])
    judge = v2.Compose([v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), *normalise])

    def by(transform):
        return lambda rows: {
            "pixel_values": [transform(image.convert("RGB")) for image in rows["image"]],
            "labels": rows[label],
        }

    tables = {
        name: table.with_transform(by(train if name == "train" else judge), columns=["image", label])
        for name, table in splits.items()
    }
    held_out = next(name for name in splits if name.startswith(("val", "dev")))
    model = AutoModelForImageClassification.from_pretrained(
        weights, num_labels=len(names), dtype=torch.float32, ignore_mismatched_sizes=True
    )

    def accuracy(predictions):
        return {"accuracy": float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, learning_rate=5e-5, per_device_train_batch_size=8,
            per_device_eval_batch_size=64, eval_strategy="epoch", save_strategy="no", report_to="none", seed=seed,
            remove_unused_columns=False, bf16=True, use_cpu=not torch.cuda.is_available(), dataloader_num_workers=1,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=tables["train"], eval_dataset=tables[held_out],
            compute_metrics=accuracy,
        )  # fmt: skip
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
        model.eval()
        right, count = 0, 0
        with torch.inference_mode():
            for first in range(0, len(tables["test"]), 50):
                rows = tables["test"][first : first + 50]
                logits = model(torch.stack(rows["pixel_values"])).logits
                right += int((logits.argmax(-1) == torch.tensor(rows["labels"])).sum())
                count += len(rows["labels"])
    return {"accuracy": right / count, "seconds": seconds}


def ours(data: str, weights: str, seed: int, epochs: int, keep: str | None = None) -> dict[str, float]:
    """The `finetune` preset; its run stays in the folder `keep`, if one is given."""
    import vithub

    with tempfile.TemporaryDirectory() as folder:
        run = vithub.finetune(
            weights, data, Path(keep or folder) / f"finetune-{seed}", epochs=epochs, seed=seed,
            values={"model.image_size": 224, "training.trackers": []},
        )  # fmt: skip
        return {"accuracy": run.metrics["test"]["accuracy"], "seconds": run.metrics["seconds"]}


def read(file: Path, epochs: int) -> dict[str, Any]:
    """What is measured so far."""
    found: dict[str, Any] = {"epochs": epochs, "plain": [], "ours": []}
    return json.loads(file.read_text()) if file.is_file() else found


def summary(runs: list[dict[str, float]]) -> str:
    """Mean and standard deviation of some runs."""
    parts = []
    for name, scale, unit in (("accuracy", 100, "%"), ("seconds", 1, "s")):
        values = [scale * run[name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        parts.append(f"{statistics.mean(values):.1f} +- {spread:.1f} {unit}")
    return ", ".join(parts)


def main() -> None:
    """Trains with each recipe and seed, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", default="benchmarks/results/flowers5.json")
    parser.add_argument("--recipes", nargs="+", choices=["plain", "ours"], default=["plain", "ours"])
    parser.add_argument("--keep", help="folder in which the runs of the preset stay")
    parser.add_argument("--one", choices=["ours", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        choices = options.data, options.weights, options.seeds[0], options.epochs
        run = ours(*choices, options.keep) if options.one == "ours" else plain(*choices)
        print("RESULT " + json.dumps(run))
        return
    file = Path(options.json)
    if (epochs := read(file, options.epochs)["epochs"]) != options.epochs:
        parser.error(f"{file} has runs of {epochs} epochs; give another --json for {options.epochs}")
    for seed in options.seeds:
        for name in options.recipes:
            if any(run["seed"] == seed for run in read(file, options.epochs)[name]):
                continue
            command = [sys.executable, __file__, "--data", options.data, "--weights", options.weights, "--one", name]
            command += ["--seeds", str(seed), "--epochs", str(options.epochs)]
            command += ["--keep", options.keep] if options.keep else []
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                raise SystemExit(done.stderr)
            found = read(file, options.epochs)  # the other recipe may have written meanwhile
            found[name].append({"seed": seed, **json.loads(lines[0].removeprefix("RESULT "))})
            print(name, found[name][-1], flush=True)
            staging = file.with_suffix(f".{os.getpid()}")
            staging.write_text(json.dumps(found, indent=1) + "\n")
            staging.replace(file)
    found = read(file, options.epochs)
    for name in ("plain", "ours"):
        if found[name]:
            print(f"{name}: {summary(found[name])}")


if __name__ == "__main__":
    main()
