"""Accuracy of a model's exported forms beside the weights', each file measured on the same images of a data set.

    python benchmarks/experiments/exported_accuracy.py --model runs/bccd --data bccd \
        --forms openvino openvino-bf16 openvino-int8 onnx onnx-int8 --output benchmarks/results/exported_bccd.json
    python benchmarks/experiments/exported_accuracy.py --model runs/flowers --data flowers5 --forms openvino-bf16 \
        --merging 0 2 4 8 --max-drop 100 --output benchmarks/results/merged_flowers5.json

Each form is exported by `vithub.export` with the gate on the split, into a temporary folder. What the gate refuses is a
result too: its message says what was tried. The result holds each entry of `export.json`, and a table is printed. What
the result file holds already is not made again.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def exported(options: argparse.Namespace, name: str, merged: int) -> dict[str, Any]:
    """Entry of `export.json` of one form, or why it was refused."""
    from vithub.hub.exported.forms import BackendError, form_of

    import vithub

    form = form_of(name)
    with tempfile.TemporaryDirectory(prefix="vithub-exported-accuracy-") as folder:
        begun = time.process_time()
        try:
            record = vithub.export(
                options.model, form.format, precision=form.precision, with_preprocessing=form.pixels,
                output=Path(folder) / "exported", data=options.data, split=options.split, max_drop=options.max_drop,
                token_merging=merged,
            ).record  # fmt: skip
        except BackendError as error:
            record = {"refused": str(error)}
        kept = {key: value for key, value in record.items() if key not in ("source", "files")}
        return {"form": name, "token_merging": merged, **kept, "core_seconds": round(time.process_time() - begun)}


def public(argument: str) -> str:
    """Argument of the command without the path of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def row(entry: dict[str, Any]) -> str:
    """Line of the table."""
    merged = f", {entry['token_merging']} merged" if entry["token_merging"] else ""
    if "refused" in entry:
        return f"| {entry['form']}{merged} | refused: {entry['refused']} |"
    accuracy, (low, high) = entry["accuracy"], (100 * end for end in entry["accuracy"]["interval"])
    left = f"{len(entry['int8']['layers_in_fp32'])} of {entry['int8']['layers']}" if "int8" in entry else ""
    same = "" if accuracy["same"] is None else f"{accuracy['same']:.1%}"
    difference = max(value for name, value in entry["largest_difference"].items() if name != "batch")
    return (
        f"| {entry['form']}{merged} | {entry['bytes'] / 1e6:.1f} MB | {100 * accuracy['exported']:.1f} % | "
        f"{-accuracy['drop_points']:+.1f} points ({low:+.1f} to {high:+.1f}) | {same} | {difference:.1e} | {left} |"
    )


def main() -> None:
    """Exports what is missing, and writes the result after each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a run or of any model that export takes")
    parser.add_argument("--data", required=True, help="labelled data set")
    parser.add_argument("--split", help="of the data set (test, or the last)")
    parser.add_argument("--forms", nargs="+", required=True, help="such as onnx, openvino-bf16, onnx-int8-pixels")
    parser.add_argument("--merging", type=int, nargs="+", default=[0], help="tokens to merge in each layer (0)")
    parser.add_argument("--max-drop", type=float, help="most points that a form may lose (that of export)")
    parser.add_argument("--about", default="", help="what the model is, for the result")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    from vithub.deployment.optimizing.kept_choice import processor_name

    file, entries = options.output, []
    if file.is_file():
        entries = json.loads(file.read_text(encoding="utf-8"))["exports"]
    for name in options.forms:
        for merged in options.merging:
            if not any((entry["form"], entry["token_merging"]) == (name, merged) for entry in entries):
                entries.append(exported(options, name, merged))
                result = {
                    "command": " ".join(["python", *map(public, sys.argv)]), "model": options.about,
                    "processor": processor_name(), "threads": os.environ.get("OMP_NUM_THREADS", "all"),
                    "exports": entries,
                }  # fmt: skip
                file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
                print(row(entries[-1]), file=sys.stderr, flush=True)
    print("\n".join(row(entry) for entry in entries))


if __name__ == "__main__":
    main()
