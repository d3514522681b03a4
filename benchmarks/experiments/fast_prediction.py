"""`vithub predict --fast` on a folder of JPEGs against transformers' `pipeline`, and what token merging costs.

    python benchmarks/experiments/fast_prediction.py --model runs/flowers --data flowers5 \
        --output benchmarks/results/fast_prediction.json

The data set's photos are written as files. Each way lives in a process of its own, with all threads of the machine, and
computes while the others wait; in every round all take turns, in another order, on the same photos, from the file to
the labels. Ratios are medians of the ratios of each round; those of processor seconds, which other programs disturb
less, stand beside. The choice of `--fast` is made once before, unless one is kept in the model's folder, and its table
is part of the result. Token merging is measured with eager fp32 in one process: processor seconds of a forward pass in
turns, and accuracy on the test split as `vithub evaluate` measures it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("pipeline", "pipeline, batch 16", "predict", "predict --fast")


def opened(way: str, folder: str, int8: bool) -> Any:
    """Function from files to the most likely label and its probability of each; `int8` of the choice of `--fast`."""
    import torch
    from transformers import pipeline

    import vithub

    torch.set_num_threads(int(os.environ["THREADS"]))
    if way.startswith("pipeline"):
        classify = pipeline("image-classification", model=folder)
        size = 16 if "16" in way else 1
        return lambda files: [(one[0]["label"], one[0]["score"]) for one in classify(files, batch_size=size, top_k=1)]
    options: dict[str, Any] = {}
    if way == "predict --fast":
        from vithub.training.tasks.evaluation import default_workers

        model = vithub.optimize(folder, expected_images=10_000, int8=int8, data=os.environ.get("LABELLED"))
        options = {"backend": model, "batch_size": model.batch_size, "workers": default_workers()}

    def predicted(files: list[str]) -> list[tuple[str, float]]:
        found = [entry["predictions"][0] for entry in vithub.predict_stream(folder, files, top=1, **options)]
        return [(one["label"], one["score"]) for one in found]

    return predicted


def work(way: str, folder: str, int8: bool) -> None:
    """Answers lines of JSON, lists of files, by the seconds taken and the answers."""
    run = opened(way, folder, int8)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        files = json.loads(line)
        begun, used = time.perf_counter(), processor_seconds()
        found = run(files)
        taken = {"seconds": time.perf_counter() - begun, "processor_seconds": processor_seconds() - used}
        answers.write(json.dumps({**taken, "found": found}) + "\n")
        answers.flush()


def processor_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def asked(process: "subprocess.Popen[str]", files: list[str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(files) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def measured_folder(model: str, files: list[str], rounds: int, at_once: int, int8: bool) -> dict[str, Any]:
    """Images per second of each way, and the agreement of their answers with those of `pipeline`."""
    processes = {
        way: subprocess.Popen(
            [sys.executable, __file__, "--way", way, "--model", model, *(["--int8"] if int8 else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for way in WAYS
    }  # fmt: skip
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    used: dict[str, list[float]] = {way: [] for way in WAYS}
    answers: dict[str, dict[str, Any]] = {way: {} for way in WAYS}
    try:
        for process in processes.values():
            asked(process, files[:32])
        for number in range(rounds):
            first = number * at_once % max(1, len(files) - at_once + 1)
            part = files[first : first + at_once]
            for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                answer = asked(processes[way], part)
                seconds[way].append(answer["seconds"] / len(part))
                used[way].append(answer["processor_seconds"] / len(part))
                answers[way] |= dict(zip(part, answer["found"], strict=True))
            print(f"round {number + 1}: {[f'{1 / seconds[way][-1]:.1f}' for way in WAYS]} images/s", file=sys.stderr)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    result = {}
    for way in WAYS:
        pairs = [(answers[way][file], answers[WAYS[0]][file]) for file in answers[way]]
        result[way] = {
            "images_per_second": 1 / statistics.median(seconds[way]),
            "ratio": statistics.median(
                base / own for own, base in zip(seconds[way], seconds[WAYS[0]], strict=True)
            ),
            "ratios": [round(base / own, 3) for own, base in zip(seconds[way], seconds[WAYS[0]], strict=True)],
            "processor_ratio": statistics.median(
                base / own for own, base in zip(used[way], used[WAYS[0]], strict=True)
            ),
            "images": len(pairs),
            "same_label": sum(one[0] == other[0] for one, other in pairs) / len(pairs),
            "largest_difference": max(abs(one[1] - other[1]) for one, other in pairs if one[0] == other[0]),
        }  # fmt: skip
    return result


def measured_merging(model: str, data: str, counts: list[int], rounds: int) -> list[dict[str, Any]]:
    """Accuracy and speed of eager fp32 with tokens merged, against none."""
    import torch
    from vithub.deployment.optimizing.candidates import Candidate
    from vithub.deployment.optimizing.optimized_model import open_candidate

    import vithub

    models = {
        count: open_candidate(Candidate("torch", token_merging=count), Path(model), Path(model), None, 16)
        for count in (0, *counts)
    }
    height, width = models[0].config.image_hw
    pixels = torch.randn(16, 3, height, width, generator=torch.Generator().manual_seed(0))
    seconds: dict[int, list[float]] = {count: [] for count in models}
    for number in range(rounds + 1):
        order = list(models)
        for count in order[number % len(order) :] + order[: number % len(order)]:
            begun = time.process_time()
            models[count](pixels)
            seconds[count].append(time.process_time() - begun)
    rows = []
    for count, merged in models.items():
        metrics = vithub.evaluate(model, data, "test", backend=merged)["metrics"]
        ratios = [base / own for own, base in zip(seconds[count][1:], seconds[0][1:], strict=True)]
        rows.append(
            {
                "tokens_merged": count, "accuracy": metrics["accuracy"], "loss": metrics["loss"],
                "ratio": statistics.median(ratios),
            }
        )  # fmt: skip
        print(rows[-1], file=sys.stderr)
    return rows


def main() -> None:
    """Measures all, and prints or writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a finetuned classifier")
    parser.add_argument("--data", help="data set with photos and a test split")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way (7)")
    parser.add_argument("--images", type=int, default=100, help="photos in each turn (100)")
    parser.add_argument("--merging", type=int, nargs="*", default=[1, 2, 3, 4], help="tokens to merge (1 2 3 4)")
    parser.add_argument("--parts", nargs="+", default=["folder", "merging"], help="of the measurement (both)")
    parser.add_argument("--int8", action="store_true", help="--fast-int8, calibrated with and measured on --data")
    parser.add_argument("--seconds", type=float, default=120.0, help="for the choice of --fast (120)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(all cores)")
    parser.add_argument("--output", type=Path, help="JSON file; printed otherwise")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("THREADS", str(arguments.threads))
    os.environ["OMP_NUM_THREADS"] = os.environ["THREADS"]
    if arguments.int8 and arguments.data:
        os.environ["LABELLED"] = arguments.data
    if arguments.way:
        work(arguments.way, arguments.model, arguments.int8)
        return
    import torch
    import transformers
    from vithub.data.labelled.tables import read_image_tables
    from vithub.deployment.optimizing.kept_choice import processor_name

    import vithub

    result: dict[str, Any] = {
        "processor": processor_name(), "cores": len(os.sched_getaffinity(0)), "threads": arguments.threads,
        "load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d"),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="vithub-fast-prediction-") as folder:
        model, photos = Path(folder) / "model", Path(folder) / "photos"
        kept_out = shutil.ignore_patterns("checkpoints", "logs")
        shutil.copytree(arguments.model, model, ignore=kept_out)
        photos.mkdir()
        tables, _ = read_image_tables(arguments.data)
        files = []
        for split, table in tables.items():
            for row in range(len(table)):
                value = table[row]["image"]
                content = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
                files.append(photos / f"{split}-{row:04}.jpg")
                files[-1].write_bytes(content)
        names = [str(file) for file in files]
        if "folder" in arguments.parts:
            begun = time.perf_counter()
            chosen = vithub.optimize(
                model, images=names[:: max(1, len(names) // 64)], seconds=arguments.seconds, expected_images=10_000,
                int8=arguments.int8, data=arguments.data if arguments.int8 else None,
            )  # fmt: skip
            assert chosen.optimization.kept is not None
            result["choice"] = {"seconds": time.perf_counter() - begun, "lines": chosen.optimization.lines()}
            print("\n".join(chosen.optimization.lines()), file=sys.stderr)
            del chosen
            result["folder"] = measured_folder(str(model), names, arguments.rounds, arguments.images, arguments.int8)
            save(result, arguments.output)
        if "merging" in arguments.parts:
            result["token_merging"] = measured_merging(str(model), arguments.data, arguments.merging, arguments.rounds)
            save(result, arguments.output)


def save(result: dict[str, Any], file: Path | None) -> None:
    """Writes what is measured so far, into what the file holds of other parts; without a file it is printed."""
    if file is None:
        print(json.dumps(result, indent=1))
        return
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(before | result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
