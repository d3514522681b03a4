"""Speed of exported forms beside eager transformers and timm: `python benchmarks/vit_speed/forms.py --help`.

A ViT-S/16 at 224 pixels with batches of 1 and of 16, and a DETR on a ResNet of 18 layers at 320 pixels. The forms are
those of `vithub.optimize`: OpenVINO in bf16 and int8, ONNX Runtime in fp32 and int8, with and without merged tokens.
All contenders compute with the same weights, each in a process of its own; one computes at a time, and in each round
they take turns in another order. Ratios are taken within each round, to the eager peer that is faster by its median.

With `--model` the model is a finetuned ViT or DeiT classifier of this package in place of random weights, and the forms
are the folders of `--exported`, each made by `vithub export --output`, whose accuracy stands beside their speed.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from report import describe_machine, spread
from run import Quiet, Worker

SUITE = Path(__file__).parents[1] / "suite"
PEERS = ("transformers bf16", "timm bf16")
# Largest difference of an output from eager fp32's, as part of the range of its values, by precision. Random weights
# amplify what trained ones do not, so int8 is bounded against mistakes only.
LARGEST = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.5}
CASES = {"vit-1": ("classification", 1), "vit-16": ("classification", 16), "detr-1": ("detection", 1)}
MODEL_CASES = {"model-1": ("classification", 1), "model-16": ("classification", 16)}


class FormWorker(Worker):
    """A contender's process."""

    program = Path(__file__).with_name("forms_worker.py")


def contenders_of(task: str, merging: list[int]) -> dict[str, dict[str, Any]]:
    """Engine, precision and number of merged tokens of each contender, by name; eager fp32 first, for comparison."""
    engines = ("vithub",) if task == "detection" else ("vithub", "timm")
    ways = [("vithub", "fp32", 0), ("transformers", "bf16", 0), *((engine, "bf16", 0) for engine in reversed(engines))]
    ways += [("openvino", "bf16", 0), ("openvino", "int8", 0)]
    if task == "classification":
        ways += [("openvino", precision, count) for count in merging for precision in ("bf16", "int8")]
        ways += [("onnx", "fp32", 0), ("onnx", "int8", 0)]
    return {
        f"{engine} {precision}" + (f", {count} tokens merged" if count else ""): {
            "engine": engine, "precision": precision, "token_merging": count,
        }
        for engine, precision, count in ways
    }  # fmt: skip


def exported_contenders(folders: list[Path]) -> dict[str, dict[str, Any]]:
    """Contenders of a finetuned model: its weights in our eager mode and in timm's, and the exported folders."""
    ways: dict[str, dict[str, Any]] = {
        f"{engine} {precision}": {"engine": engine, "precision": precision, "token_merging": 0}
        for engine, precision in (("vithub", "fp32"), ("timm", "bf16"), ("vithub", "bf16"))
    }
    for folder in folders:
        ((_, record),) = json.loads((folder / "export.json").read_text(encoding="utf-8"))["forms"].items()
        merged = record.get("token_merging", 0)
        name = f"{record['format']} {record['precision']}" + (f", {merged} tokens merged" if merged else "")
        ways[name] = {
            "engine": record["format"], "precision": record["precision"], "token_merging": merged,
            "folder": str(folder), "accuracy": record["accuracy"],
        }  # fmt: skip
    return ways


def write_models(folder: Path, task: str, tiny: bool, image_size: int) -> None:
    """Writes the folders "vithub", "transformers" and, for a classifier, "timm" with the same random weights."""
    import torch
    from vithub.data.image_processing import build_image_processor

    import vithub

    sys.path.insert(0, str(SUITE))
    from arms import detr_model, vit

    size = "tiny" if tiny else "full"
    model = detr_model("vithub", size) if task == "detection" else vit("vithub", size)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # no bias may stay 0 and no scale 1, or a mix-up would not be seen
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.02)
    model.eval().save_pretrained(folder / "vithub")
    build_image_processor((image_size, image_size)).save_pretrained(folder / "vithub")
    for library in ("transformers",) if task == "detection" else ("transformers", "timm"):
        vithub.convert(folder / "vithub", folder / library, to=library)


def copy_model(model: Path, folder: Path) -> None:
    """Writes the folders "vithub" and "timm" with the weights of a finetuned classifier."""
    import vithub

    shutil.copytree(model, folder / "vithub", ignore=shutil.ignore_patterns("checkpoints", "logs", "fast"))
    vithub.convert(model, folder / "timm", to="timm")


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest difference of an output, as part of the range of the first's values."""
    import numpy as np

    found = []
    for name, values in one.items():
        left, right = np.asarray(values), np.asarray(other[name])
        found.append(float(np.abs(left - right).max() / (left.max() - left.min())))
    return max(found) if all(np.isfinite(found)) else float("inf")


def run_case(job: dict[str, Any], contenders: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Figures of each contender of a case, after their outputs are compared with those of eager fp32."""
    quiet, rounds, checks = Quiet(options.patience * 60), [], {}
    with ExitStack() as stack:
        workers = {}
        for name, way in contenders.items():
            workers[name] = stack.enter_context(FormWorker(job | way | {"contender": name}))
            checks[name] = workers[name].ask(do="check")
        reference = next(iter(checks.values()))["outputs"]
        for name, way in contenders.items():
            checks[name]["difference"] = difference(reference, checks[name].pop("outputs"))
            limit = float("inf") if way["token_merging"] else LARGEST[way["precision"]]
            if not checks[name]["difference"] <= limit:
                raise RuntimeError(f"outputs of {name} differ from eager fp32's by {checks[name]['difference']:.2g}")
            workers[name].ask(do="measure", seconds=min(options.seconds, 1))
        for number in range(0 if options.only_prepare else options.rounds):
            names = list(workers)
            turn = number % len(names)
            order = names[turn:] + names[:turn]
            rounds.append({name: quiet.measure(workers[name], options.seconds) for name in order})
    if not rounds:
        return {}
    speeds = {name: [one[name]["steps_per_second"] * job["batch_size"] for one in rounds] for name in workers}
    faster = max((name for name in PEERS if name in speeds), key=lambda name: statistics.median(speeds[name]))
    rows = {}
    for name, own in speeds.items():
        ratios = [speed / peer for speed, peer in zip(own, speeds[faster], strict=True)]
        rows[name] = {
            **contenders[name], "images_per_second": spread(own), "ratio": spread(ratios),
            "cores_of_others": spread([one[name]["cores_of_others"] for one in rounds]),
            "peak_memory_mb": max(one[name]["peak_memory_mb"] for one in rounds),
            "file_mb": checks[name]["bytes"] / 1e6, "difference": checks[name]["difference"],
        }  # fmt: skip
    return {"faster_peer": faster, "contenders": rows, "repeated": quiet.repeated, "disturbed": quiet.disturbed}


def table_of(name: str, case: dict[str, Any]) -> list[str]:
    """Markdown table of a case."""
    lines = [
        f"| {name} | images/s | to {case['faster_peer']} | file | peak memory | largest difference, of the range |",
        "|---|---|---|---|---|---|",
    ]
    for contender, row in case["contenders"].items():
        speed, ratio = row["images_per_second"], row["ratio"]
        lines.append(
            f"| {contender} | {speed['median']:.1f} | {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) "
            f"| {row['file_mb']:.1f} MB | {row['peak_memory_mb']:.0f} MB | {row['difference']:.1e} |"
        )
    return [*lines, ""]


def accuracy_lines(case: dict[str, Any]) -> list[str]:
    """Markdown table of the accuracies of exported folders, as `vithub export` measured them."""
    lines = ["| file | accuracy | of the weights | change in points, 95 % interval | images |", "|---|---|---|---|---|"]
    for contender, row in case["contenders"].items():
        if (found := row.get("accuracy")) is not None:
            low, high = (100 * end for end in found["interval"])
            lines.append(
                f"| {contender} | {found['exported']:.1%} | {found['source']:.1%} | {-found['drop_points']:+.1f} "
                f"({low:+.1f} to {high:+.1f}) | {found['images']} |"
            )
    return [*lines, ""] if len(lines) > 2 else []


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="of random weights")
    parser.add_argument("--model", type=Path, help="folder of a finetuned classifier, in place of random weights")
    parser.add_argument("--exported", type=Path, nargs="+", default=[], help="folders of its exported forms")
    parser.add_argument("--merging", type=int, nargs="*", default=[8, 13], help="tokens to merge in each layer")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement, at least; and at least two steps")
    parser.add_argument("--patience", type=float, default=2, help="minutes per case to wait for a quiet machine")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out, by words of their names")
    parser.add_argument("--prepared", type=Path, help="folder that keeps models and exported files for another run")
    parser.add_argument("--only-prepare", action="store_true", help="write and check the files, and measure nothing")
    parser.add_argument("--json", type=Path, default=Path("runs/forms.json"), help="file for all figures")
    parser.add_argument("--tiny", action="store_true", help="tiny models, 1 short round: to see that it runs")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.rounds, options.seconds, options.patience, options.merging = 1, 0.05, 0.0, [1]
    return options


def main() -> None:
    """Measures, prints tables and writes the JSON file."""
    options = parse()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/vit_speed/forms.py", *sys.argv[1:]]),
        "machine": describe_machine("cpu", options.threads),
        "versions": versions(),
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "threads": options.threads},
        "cases": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        cases = MODEL_CASES if options.model else {name: CASES[name] for name in options.cases}
        for name, (task, batch) in cases.items():
            side = (32, 64)[task == "detection"] if options.tiny else (224, 320)[task == "detection"]
            weights = (options.prepared or Path(temporary)) / ("model" if options.model else task)
            if options.model:
                side = json.loads((options.model / "config.json").read_text(encoding="utf-8"))["image_size"]
            if options.model and not weights.is_dir():
                copy_model(options.model, weights)
            elif not weights.is_dir():
                write_models(weights, task, options.tiny, side)
            job = {
                "task": task, "batch_size": batch, "image_size": side, "weights": str(weights),
                "threads": options.threads, "allocator": "keep",
            }  # fmt: skip
            ways = {
                one: way
                for one, way in (
                    exported_contenders(options.exported) if options.model else contenders_of(task, options.merging)
                ).items()
                if not any(word in one for word in options.without)
            }  # fmt: skip
            if case := run_case(job, ways, options):
                result["cases"][name] = case
                print("\n".join([*table_of(name, case), *accuracy_lines(case)]), flush=True)
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of the libraries whose speed is in the figures."""
    from importlib.metadata import version

    names = ("vithub", "torch", "transformers", "timm", "openvino", "nncf", "onnxruntime")
    return {name: version(name) for name in names}


if __name__ == "__main__":
    main()
