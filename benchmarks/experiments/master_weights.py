"""Losses and accuracy in fp32, bf16 autocast and bf16 throughout with master weights, on the 1,797 digits.

    python benchmarks/experiments/master_weights.py --steps 500 --seeds 0 1 2

Each run sees the same images in the same order from the same start, so that the three differ in rounding only.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import vithub

ARMS = {
    "fp32": {"training.precision": "fp32"},
    "autocast": {"training.precision": "bf16"},
    "master weights": {"training.precision": "bf16", "training.master_weights": True},
}
MODEL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 6, "initializer_range": 0.1}
LAST = 50  # steps over which the final loss is averaged


def train(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Returns the losses of all steps and the test accuracy of the last weights."""
    values = {
        "model.source": "deit-ti/4", "model.image_size": 16, "model.fields": MODEL, "data.workers": 0, "seed": seed,
        "training.batch_size": 32, "training.max_steps": steps, "training.epochs": steps, "training.lr": 2e-3,
        "training.publish": "last", "training.keep_checkpoints": 0, "training.trackers": [], **ARMS[arm],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = vithub.finetune(preset="digits", output=Path(folder) / "run", values=values)
    return {"losses": [round(loss, 5) for loss in run.losses], "accuracy": run.metrics["test"]["accuracy"]}


def main() -> None:
    """Runs all arms with each seed and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/master_weights.json"))
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if options.output.is_file():  # a run that was cut off goes on
        before = json.loads(options.output.read_text(encoding="utf-8"))
        runs = before["runs"] if before["steps"] == options.steps else []
    done = {(run["arm"], run["seed"]) for run in runs}
    for seed in options.seeds:
        for arm in ARMS:
            if (arm, seed) not in done:
                runs.append({"arm": arm, "seed": seed} | train(arm, seed, options.steps))
                options.output.write_text(json.dumps({"steps": options.steps, "runs": runs}) + "\n", encoding="utf-8")
    for arm in ARMS:
        results = [run for run in runs if run["arm"] == arm]
        losses = ", ".join(f"{mean(result['losses'][-LAST:]):.4f}" for result in results)
        accuracies = ", ".join(f"{100 * result['accuracy']:.2f}" for result in results)
        sys.stdout.write(f"{arm:16s} loss of the last {LAST} steps {losses}; test accuracy {accuracies} %\n")


if __name__ == "__main__":
    main()
