"""Blood cells: transformers' DETR with its defaults, our plain DETR by the published recipe, and `detr-small-data`.

    python benchmarks/experiments/bccd.py --data bccd --backbone tf_efficientnet_lite0 --seeds 0 --runs runs/bccd

All three start from the same classifier's weights as backbone, see the same photos at 320 x 240 pixels, flipped in both
directions, and are judged on the test split by the same code, COCO's figures. The transformers arm is `Trainer` with
its own defaults (AdamW 5e-5, linear decay, no weight decay, batches of 8, clipping at 1) around
`DetrForObjectDetection` with its own (100 queries, 6 + 6 layers, no auxiliary loss). Each training is a process of its
own on one thread; a run that is there is not trained again. `core_seconds` is the computing time of that process with
its start, loading processes and validations, which other work on the machine does not change: `--epochs` makes it
equal for the arms.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ARMS = ("transformers", "plain", "small-data")
SHORTEST, LONGEST = 240, 320
RESULT = "transformers.json"
CORE_SECONDS = "core_seconds.txt"


def of_this_package(options: argparse.Namespace, arm: str, seed: int, folder: Path) -> None:
    """A preset, at the size and with the flips of this comparison."""
    import vithub

    vithub.finetune(
        data=options.data, output=folder, preset={"plain": "detr", "small-data": "detr-small-data"}[arm],
        epochs=options.epochs, seed=seed,
        values={
            "model.backbone": options.backbone, "model.image_size": SHORTEST, "boxes.vertical_flip": 0.5,
            "training.trackers": [],
            # the drop of the published schedule is after two thirds of the epochs, whatever their number
            **({"training.step_epochs": 2 * options.epochs // 3} if arm == "plain" else {}),
        },
    )  # fmt: skip


def of_transformers(options: argparse.Namespace, seed: int, folder: Path) -> None:
    """`DetrForObjectDetection` in `Trainer`, with the defaults of both, save for the backbone's normalisations.

    transformers replaces them by its own frozen ones, which keep neither timm's epsilon nor the activation that timm
    computes inside of them: the features of this network are then of the order of 1e15 and the gradients not finite.
    So the network that trains is timm's, frozen by timm. What is saved would be broken again when it is loaded:
    the model is judged where it was trained.
    """
    import timm
    import torch
    from safetensors.torch import load_file
    from timm.utils.model import freeze_batch_norm_2d
    from transformers import (
        DetrConfig,
        DetrForObjectDetection,
        DetrImageProcessor,
        TimmBackboneConfig,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )
    from vithub.data.boxes.augmentation import BoxTransform
    from vithub.data.boxes.augmentation_settings import BoxAugmentation
    from vithub.data.boxes.dataset import BoxEvaluationTransform, BoxImages, collate_boxes
    from vithub.data.boxes.loading import load_box_data
    from vithub.data.samplers import SampleKey
    from vithub.training.tasks.detection.evaluation import BoxEvaluator
    from vithub.training.tasks.evaluation import evaluate_split

    set_seed(seed)
    data = load_box_data(options.data)
    name = json.loads((Path(options.backbone) / "config.json").read_text())["architecture"]
    lite = TimmBackboneConfig(backbone=name, out_indices=[4], use_pretrained_backbone=False)
    model = DetrForObjectDetection(DetrConfig(backbone_config=lite, id2label=data.id2label))
    network = timm.create_model(name, features_only=True, out_indices=[4])
    weights = load_file(Path(options.backbone) / "model.safetensors")
    network.load_state_dict({key: weights[key] for key in network.state_dict()})
    place = next(place for place, part in model.named_modules() if hasattr(part, "conv_stem"))
    model.set_submodule(place, freeze_batch_norm_2d(network))
    mean = std = (0.5, 0.5, 0.5)
    size = {"shortest_edge": SHORTEST, "longest_edge": LONGEST}
    processor = DetrImageProcessor(size=size, image_mean=list(mean), image_std=list(std))
    flips = BoxAugmentation(vertical_flip=0.5, sides=(800,), crop=0.0)
    images = BoxImages(data.train, BoxTransform(flips, SHORTEST, mean, std), seed=seed)
    judged = {
        split: BoxImages(data.splits[split], BoxEvaluationTransform(processor), name=split)
        for split in ("validation", "test")
    }

    class Photos(torch.utils.data.Dataset):
        epoch = 0

        def __len__(self):
            return len(images)

        def __getitem__(self, row):
            return images[SampleKey(row, self.epoch, row)]

    photos, curve, begun = Photos(), [], time.perf_counter()

    def judge(split):
        model.eval()
        evaluator = BoxEvaluator(model, judged[split], processor, len(data.classes.names))
        counts = evaluate_split(evaluator, batch_size=8).metrics
        model.train()
        return counts

    class Curve(TrainerCallback):
        def on_epoch_end(self, _arguments, state, _control, **_rest):
            photos.epoch = round(state.epoch)
            if photos.epoch % options.every and photos.epoch != options.epochs:
                return
            found = judge("validation").compute()
            seconds = round(time.perf_counter() - begun, 1)
            curve.append({"epoch": photos.epoch, "seconds": seconds, "map": found["map"], "map_50": found["map_50"]})
            print(curve[-1], flush=True)

    arguments = TrainingArguments(
        output_dir=str(folder), num_train_epochs=options.epochs, save_strategy="no", report_to="none", seed=seed,
        remove_unused_columns=False, bf16=True, use_cpu=not torch.cuda.is_available(), dataloader_num_workers=0,
    )  # fmt: skip

    def collate(samples):
        return images.finish(collate_boxes(samples))

    Trainer(model, arguments, data_collator=collate, train_dataset=photos, callbacks=[Curve()]).train()
    counts = judge("test")
    result = {"metrics": counts.compute(), "per_class": counts.per_class(data.classes.names), "curve": curve}
    (folder / RESULT).write_text(json.dumps(result) + "\n")


def core_seconds() -> float:
    """Computing time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(options: argparse.Namespace, arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Test figures and the validation curve of a finished run."""
    import vithub

    if (folder / RESULT).is_file():
        found = json.loads((folder / RESULT).read_text())
        curve = found["curve"]
    else:
        found = vithub.evaluate(folder, options.data, "test", workers=0)
        history = json.loads((folder / "metrics.json").read_text())["history"]
        curve = [
            {"epoch": entry["epoch"], "seconds": round(entry["seconds"], 1),
             "map": entry["validation_map"], "map_50": entry.get("validation_map_50")}
            for entry in history
        ]  # fmt: skip
    return {
        "arm": arm,
        "seed": seed,
        "epochs": curve[-1]["epoch"],
        "seconds": curve[-1]["seconds"],
        "core_seconds": float((folder / CORE_SECONDS).read_text()),
        "map": found["metrics"]["map"],
        "map_50": found["metrics"]["map_50"],
        "per_class": {row["label"]: {name: row[name] for name in ("map", "map_50")} for row in found["per_class"]},
        "curve": curve,
    }


def draw(runs: dict[str, dict[str, Any]], file: Path) -> None:
    """Validation mAP against training time, the mean line of seeds apart."""
    from vithub.training.tasks.plots import BLUE, GREEN, ORANGE, new_figure

    looks = {
        "transformers": (BLUE, "-", "transformers' DETR and Trainer, defaults"),
        "plain": (ORANGE, "--", "DETR by the published recipe"),
        "small-data": (GREEN, ":", "detr-small-data"),
    }
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for arm, (color, line, label) in looks.items():
        for number, run in enumerate(run for run in runs.values() if run["arm"] == arm):
            # epochs cost the same; by the clock they do not, on a machine that does other work too
            minutes = [run["core_seconds"] / 60 * entry["epoch"] / run["epochs"] for entry in run["curve"]]
            values = [100 * entry["map"] for entry in run["curve"]]
            axes.plot(minutes, values, color=color, linestyle=line, label=None if number else label)
    axes.set_xlabel("computing time (minutes of one core)")
    axes.set_ylabel("validation mAP (%)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file)


def main() -> None:
    """Trains what is missing, measures, writes the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", required=True, help="folder of the classifier, timm in transformers' layout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--every", type=int, default=5, help="epochs between the validations of transformers' arm")
    parser.add_argument("--runs", default="runs/bccd", help="folder of the runs")
    parser.add_argument("--json", default="benchmarks/results/bccd.json")
    parser.add_argument("--picture", default="docs/pictures/bccd.png")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    file = Path(options.json)
    for seed in options.seeds:
        for arm in options.arms:
            folder = Path(options.runs) / f"{arm}-{options.epochs}-{seed}"
            if options.one:
                folder.mkdir(parents=True, exist_ok=True)
                if arm == "transformers":
                    of_transformers(options, seed, folder)
                else:
                    of_this_package(options, arm, seed, folder)
                return
            if not any((folder / name).is_file() for name in (RESULT, "metrics.json")):
                command = [sys.executable, __file__, "--one", "--data", options.data, "--backbone", options.backbone]
                command += ["--seeds", str(seed), "--arms", arm, "--epochs", str(options.epochs)]
                command += ["--every", str(options.every), "--runs", options.runs]
                before = core_seconds()
                subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
                (folder / CORE_SECONDS).write_text(f"{core_seconds() - before:.0f}\n")
            run = measure(options, arm, seed, folder)
            runs = json.loads(file.read_text()) if file.is_file() else {}
            runs[f"{arm}/{options.epochs}/{seed}"] = run
            staging = file.with_suffix(f".{os.getpid()}")
            staging.write_text(json.dumps(runs, indent=1) + "\n")
            staging.replace(file)
            print(
                f"{arm}/{options.epochs}/{seed}: mAP50 {100 * run['map_50']:.1f} %, mAP {100 * run['map']:.1f} %",
                flush=True,
            )
    runs = json.loads(file.read_text())
    for arm in ARMS:
        for epochs in sorted({run["epochs"] for run in runs.values() if run["arm"] == arm}):
            own = [run for run in runs.values() if (run["arm"], run["epochs"]) == (arm, epochs)]
            values = [100 * run["map_50"] for run in own]
            spread = statistics.stdev(values) if len(own) > 1 else 0.0
            minutes = statistics.mean(run["core_seconds"] for run in own) / 60
            print(
                f"{arm}, {epochs} epochs: mAP50 {statistics.mean(values):.1f} +- {spread:.1f} %, "
                f"{minutes:.0f} min of one core ({len(own)} seeds)"
            )
    draw(runs, Path(options.picture))


if __name__ == "__main__":
    main()
