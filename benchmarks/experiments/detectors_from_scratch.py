"""A small D-FINE and a small RF-DETR of transformers, trained from random weights on blood cells.

    python benchmarks/experiments/detectors_from_scratch.py --data bccd --types d_fine --epochs 40 --runs runs/scratch

What a type reaches without pretrained weights, in minutes of one core: the models are those of
`overfit_detectors.py`, at images of 96 x 128 pixels, trained by `vithub finetune` with the preset `detr-pretrained` at
higher rates and with flips in both directions. A run that was interrupted goes on from its last checkpoint. `minutes`
are computing time of this process with its start and validations, of all its lives.
"""

import argparse
import json
import resource
from pathlib import Path
from typing import Any

import torch
import transformers
from overfit_detectors import start
from vithub.data.boxes.loading import load_box_data

import vithub

IMAGE_HW = (96, 128)
RATES = {"d_fine": 2e-3, "rf_detr": 1e-3}
SPENT = "core_seconds.txt"


def train(model_type: str, options: argparse.Namespace) -> dict[str, Any]:
    """Trains a model type, or goes on with its run, and measures it on the test split."""
    folder = Path(options.runs) / f"{model_type}-{options.seed}"
    began = folder.with_name(f"{folder.name}-start")
    if not began.is_dir():
        start(model_type, list(load_box_data(options.data).classes.names), began, IMAGE_HW)
    spent = folder.with_name(f"{folder.name}-{SPENT}")
    before = float(spent.read_text()) if spent.is_file() else 0.0
    rate = RATES[model_type]
    try:
        run = vithub.finetune(
            model=str(began), data=options.data, output=folder, preset="detr-pretrained", epochs=options.epochs,
            seed=options.seed, resume=(folder / "recipe.yaml").is_file(),
            values={
                "data.workers": 0, "boxes.vertical_flip": 0.5, "boxes.batch_scale": (1.0, 1.0),
                "training.batch_size": 8, "training.lr": rate, "training.backbone_lr": rate, "training.clip_norm": 1.0,
                "training.ema_decay": 0.99, "training.precision": "fp32", "training.trackers": [],
                "training.keep_checkpoints": 1,
            },
        )  # fmt: skip
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent.write_text(str(before + used.ru_utime + used.ru_stime))
    test, classes = run.metrics["test"], run.metrics["per_class"]
    return {
        "epochs": options.epochs, "seed": options.seed,
        "minutes": round(float(spent.read_text()) / 60, 1), "parameters": run.metrics["parameters"],
        "map": test["map"], "map_50": test["map_50"],
        "per_class": {row["label"]: {name: row[name] for name in ("map", "map_50")} for row in classes},
        "curve": [
            {"epoch": entry["epoch"], "loss": round(entry["train_loss"], 3), "map": entry["validation_map"]}
            for entry in run.metrics["history"]
        ],
    }  # fmt: skip


def main() -> None:
    """Trains the types that were asked for, and adds each to the file of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of BCCD as Parquet files")
    parser.add_argument("--types", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--epochs", type=int, default=40, help="passes over 205 photos, 26 steps each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", required=True, help="folder for the runs")
    parser.add_argument("--output", default="benchmarks/results/detectors_from_scratch.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = Path(options.output)
    results = json.loads(file.read_text()) if file.is_file() else {"versions": {}, "types": {}}
    for model_type in options.types:
        results["types"][model_type] = train(model_type, options)
        results["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
