"""Share of a training that is spent waiting for images: a ViT-S/16 on JPEGs, on the CPU, with two loading processes.

python benchmarks/waiting.py --data flowers5 --output benchmarks/results/waiting.json

The share is `waited_for_images` of `metrics.json`, of each epoch of a finetuning with the preset `finetune` at 224
pixels, whose first step also waits for the loading processes to start. The evaluations are made on few images, as they
do not count. The loading processes share the cores with the training, as they do in any run; the load of the machine
is therefore written beside. What a machine that computes faster would wait follows from `images_per_second` here and in
`loader.json`: nothing, as long as the loading processes deliver more than the model takes.
"""

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from loader import cpu_name
from vithub.data.labelled.tables import load_image_data

import vithub

HELD_OUT = 8  # images of validation and test


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or Hub id of labelled JPEGs")
    parser.add_argument("--model", default="vit-s", help="named size, trained from scratch")
    parser.add_argument("--images", type=int, default=160, help="training images of an epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> None:
    """Prints the share of each epoch as JSON."""
    options = parse()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    splits = load_image_data(options.data).splits
    some = DatasetDict({
        name: table.shuffle(seed=0).select(range(min(len(table), options.images if name == "train" else HELD_OUT)))
        for name, table in splits.items()
    })  # fmt: skip
    values: dict[str, Any] = {
        "data.workers": options.workers, "training.precision": options.precision, "training.trackers": [],
        "evaluation.batch_size": HELD_OUT,
    }  # fmt: skip
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = vithub.finetune(
            options.model, some, Path(folder) / "run", preset="finetune", epochs=options.epochs,
            batch_size=options.batch_size, image_size=options.image_size, values=values,
        )  # fmt: skip
        history = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))["history"]
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "data": Path(options.data).name,
        "model": options.model,
        "batch_size": options.batch_size,
        "steps_per_epoch": len(some["train"]) // options.batch_size,
        "workers": options.workers,
        "precision": options.precision,
        "waited_for_images": [round(entry["waited_for_images"], 5) for entry in history],
        "images_per_second": [round(entry["images_per_second"], 2) for entry in history],
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
                    "system": platform.system()},
        "versions": {name: version(name) for name in ("torch", "torchvision", "pillow")},
    }  # fmt: skip
    text = json.dumps(found, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
