"""flowers5: a CNN finetuned as the teacher, and a small DeiT from scratch with and without it.

    python benchmarks/experiments/flowers5_distillation.py --data flowers5 --teacher tf_efficientnet_lite0

First the teacher, an EfficientNet-Lite0 of ImageNet, is given the five labels with `vithub.finetune` like any other
classifier. Then each seed trains the same DeiT (128 pixels, patch 16) on the 500 photos without a teacher, and with it
through the distillation token, by its decision (hard, as DeiT does) or its probabilities (soft, tau 3). Equal epochs;
the last epoch is judged on the 150 photos of the test split.

Each cell is a process of its own on one thread and is written when it ends; a second start goes on with the cells that
are missing. The teacher's run is left in `--teacher-run`.
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

SIDE = 128
TEACHER = {"model.image_size": SIDE, "training.lr": 1e-3, "training.layer_decay": 1.0, "training.warmup": 1}
STUDENT = {
    "model.image_size": SIDE,
    "model.fields.hidden_size": 128,
    "model.fields.num_hidden_layers": 4,
    "model.fields.num_attention_heads": 4,
    "model.fields.initializer_range": 0.1,
    "model.fields.drop_path_rate": 0.0,
    "augmentation.scale": [0.35, 1.0],
    "augmentation.rand_augment": None,
    "augmentation.random_erasing": 0.0,
    "augmentation.color_jitter": 0.2,
    "training.batch_size": 25,
    "training.lr": 1e-3,
    "training.warmup": 3,
    "training.publish": "last",
}
SHARED = {"training.trackers": [], "data.workers": 1}
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "hard": {"distillation.kind": "hard"},
    "soft": {"distillation.kind": "soft", "distillation.temperature": 3.0, "distillation.reduction": "batchmean"},
}


def run_cell(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Trains the teacher, or the student of an arm and seed."""
    import vithub

    arm, _, seed = name.partition("/")
    if arm == "teacher":
        run = vithub.finetune(
            options.teacher, options.data, options.teacher_run, epochs=options.teacher_epochs, seed=0,
            values=TEACHER | SHARED,
        )  # fmt: skip
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = vithub.finetune(
                "deit-ti/16", options.data, Path(folder) / "run", preset="from-scratch-small", seed=int(seed),
                epochs=options.epochs, values=STUDENT | SHARED | ARMS[arm],
                teacher=None if arm == "none" else options.teacher_run,
            )  # fmt: skip
    kept = ("epoch", "train_loss", "validation_accuracy", "seconds")
    return {
        "arm": arm,
        "seed": int(seed or 0),
        "accuracy": run.metrics["test"]["accuracy"],
        "seconds": run.metrics["seconds"],
        "epochs": len(run.metrics["history"]),
        "parameters": run.metrics["parameters"],
        "precision": run.metrics["precision"],
        "history": [{key: round(entry[key], 4) for key in kept} for entry in run.metrics["history"]],
    }


def main() -> None:
    """Trains the cells that are missing, and writes the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True, help="folder or Hub id of the CNN")
    parser.add_argument("--teacher-run", default="runs/flowers5-teacher", help="where its finetuning is left")
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", default="benchmarks/results/flowers5_distillation.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print("RESULT " + json.dumps(run_cell(options, options.one)))
        return
    file = Path(options.json)
    found = json.loads(file.read_text()) if file.is_file() else {}
    for name in ["teacher", *(f"{arm}/{seed}" for seed in options.seeds for arm in options.arms)]:
        if name in found and (name != "teacher" or (Path(options.teacher_run) / "metrics.json").is_file()):
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            raise SystemExit(done.stderr)
        found[name] = json.loads(lines[0].removeprefix("RESULT "))
        staging = file.with_suffix(".part")
        staging.write_text(json.dumps(found, indent=1) + "\n")
        staging.replace(file)
        print(f"{name}: {100 * found[name]['accuracy']:.1f} % in {found[name]['seconds']:.0f} s", flush=True)
    for arm in ARMS:
        if runs := [cell for cell in found.values() if cell["arm"] == arm]:
            values = [100 * run["accuracy"] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            seconds = statistics.mean(run["seconds"] for run in runs)
            print(f"{arm}: {statistics.mean(values):.1f} +- {spread:.1f} % ({len(runs)} seeds), {seconds:.0f} s")


if __name__ == "__main__":
    main()
