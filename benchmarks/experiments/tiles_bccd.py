"""Small objects in large pictures: a detector on 3 x 3 mosaics of blood cells, with and without tiles.

    python benchmarks/experiments/overfit_detectors.py --data bccd --types rt_detr --runs runs/overfit
    python benchmarks/experiments/tiles_bccd.py --data bccd --run runs/overfit/rt_detr --split train --first 16

or, with a detector that has not seen the photos that it is measured on, a run of `bccd.py` and the test split:

    python benchmarks/experiments/tiles_bccd.py --data bccd --run runs/bccd/small-data-60-0

Each mosaic is made of nine photos of a split, at half their size and in an order drawn from a seed, and is 960 x 720
pixels. Without tiles the model sees a mosaic at the size at which it was trained to see one photo; with tiles it sees
parts as large as a photo, which overlap and therefore cut across photos and cells. The arm `large` is the same model on
whole mosaics at three times the size. Sizes of objects are COCO's, in pixels of the mosaic: small is below 32 x 32.
"""

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

ROWS = COLUMNS = 3
PART = (320, 240)  # (width, height) of a photo in a mosaic
FIGURES = ("map", "map_50", "map_small", "map_medium", "mar_small")
TILE = f"{PART[1]}x{PART[0]}"
ARMS: dict[str, dict[str, Any]] = {
    "whole": {},
    "large": {},
    "tiles, nmm-ios": {"tiles": TILE},
    "tiles, nmm-iou": {"tiles": TILE, "tile_merge": "nmm-iou"},
    "tiles, nms-ios": {"tiles": TILE, "tile_merge": "nms-ios"},
    "tiles, nms-iou": {"tiles": TILE, "tile_merge": "nms-iou"},
    "tiles alone, nmm-ios": {"tiles": TILE, "tiles_only": True},
    "tiles alone, nms-ios": {"tiles": TILE, "tile_merge": "nms-ios", "tiles_only": True},
}


def mosaics(rows: Any, names: list[str], seed: int) -> Any:
    """Mosaics of the photos of a split, each photo in one of them; what is left of less than nine is left out."""
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image, List, Value
    from PIL import Image as Picture
    from vithub.data.images import decode_image

    order = np.random.default_rng(seed).permutation(len(rows))
    each, images, objects = ROWS * COLUMNS, [], []
    for first in range(0, len(order) - each + 1, each):
        picture, boxes, classes = Picture.new("RGB", (PART[0] * COLUMNS, PART[1] * ROWS)), [], []
        for place, row in enumerate(rows[int(number)] for number in order[first : first + each]):
            left, top = PART[0] * (place % COLUMNS), PART[1] * (place // COLUMNS)
            photo = decode_image(row["image"])
            picture.paste(photo.resize(PART, Picture.Resampling.BICUBIC), (left, top))
            across, down = PART[0] / photo.width, PART[1] / photo.height
            for x0, y0, x1, y1 in row["boxes"]:
                boxes.append([left + x0 * across, top + y0 * down, (x1 - x0) * across, (y1 - y0) * down])
            classes += row["classes"]
        images.append(picture)
        objects.append({"bbox": boxes, "category": classes})
    kinds = {"bbox": List(List(Value("float64"))), "category": List(ClassLabel(names=names))}
    features = Features({"image": Image(), "objects": kinds})
    return Dataset.from_dict({"image": images, "objects": objects}, features=features)


def larger(run: Path) -> Path:
    """A copy of a run whose image processor makes images of three times the size."""
    copy = run.with_name(f"{run.name}-large")
    if not copy.exists():
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "logs"))
        file = copy / "preprocessor_config.json"
        content = json.loads(file.read_text())
        content["size"] = {name: ROWS * side for name, side in content["size"].items()}
        file.write_text(json.dumps(content))
    return copy


def main() -> None:
    """Measures all arms on each seed's mosaics, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", required=True, help="folder of a detector of blood cells")
    parser.add_argument("--split", default="test", help="of the photos in the mosaics")
    parser.add_argument("--first", type=int, help="so many photos of the split, from the first on; default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the mosaics")
    parser.add_argument("--json", default="benchmarks/results/tiles_bccd.json")
    options = parser.parse_args()

    from datasets import DatasetDict
    from vithub.data.boxes.loading import load_box_data
    from vithub.data.text.json_text import json_text
    from vithub.training.runtime.environment import software_versions

    import vithub

    run = Path(options.run)
    facts = json.loads((run / "metrics.json").read_text())
    data = load_box_data(options.data, repair=True)
    names, photos = list(data.classes.names), data.splits[options.split]
    photos = photos.select(range(options.first or len(photos)))
    found: dict[str, Any] = {
        "detector": {
            "architecture": json.loads((run / "config.json").read_text())["architectures"][0],
            "parameters": facts["parameters"], "epochs": facts["history"][-1]["epoch"],
            "processor_size": json.loads((run / "preprocessor_config.json").read_text())["size"],
        },
        "split": options.split, "photos": len(photos), "versions": software_versions(), "arms": {},
    }  # fmt: skip
    made = {split: mosaics(data.splits[split].select(range(9)), names, 0) for split in ("train", "validation")}
    for seed in options.seeds:
        test = DatasetDict({**made, "test": mosaics(photos, names, seed)})
        for arm, choices in ARMS.items():
            folder = larger(run) if arm == "large" else run
            result = vithub.evaluate(folder, test, "test", workers=0, batch_size=1, **choices)
            row = {name: result["metrics"][name] for name in FIGURES}
            row |= {entry["label"]: entry["map"] for entry in result["per_class"]}
            row |= {"images": result["images"], "boxes": result["boxes"], "errors": result["errors"]["counts"]}
            found["arms"].setdefault(arm, {})[str(seed)] = row
            print(f"{arm}, seed {seed}: " + ", ".join(f"{n} {100 * (row[n] or 0):.1f}" for n in FIGURES), flush=True)
    file = Path(options.json)
    staging = file.with_suffix(f".{os.getpid()}")
    staging.write_text(json_text(found, indent=1) + "\n")
    staging.replace(file)
    for arm, rows in found["arms"].items():
        shown = []
        for name in (*FIGURES, *names):
            values = [100 * (row[name] or 0) for row in rows.values()]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            shown.append(f"{name} {statistics.mean(values):.1f} +- {spread:.1f}")
        print(f"{arm}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
