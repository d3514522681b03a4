"""The arms of the benchmark of loading images with boxes load the same images, at sizes and with boxes of one kind."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_every_arm_loads_padded_batches_with_targets(tmp_path):
    images, annotations = [], []
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 120, "height": 90})
        box = {"image_id": number, "category_id": 1, "bbox": [10, 20, 60, 50], "area": 3000, "iscrowd": 0}
        annotations.append({"id": number, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "all.json").write_text(json.dumps(content))
    spec = importlib.util.spec_from_file_location("loader_boxes", FOLDER / "loader_boxes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table, arms = module.box_arms(str(tmp_path / "all.json"))
    assert len(table) > 4
    found = {name: load([0, 1, 2], 1) for name, load in arms.items()}
    sides = {round(side * module.SIDE / 800) for side in module.RECIPE.boxes.sides}
    for name, batch in found.items():
        pixels = batch["pixel_values"]
        assert pixels.dtype == (torch.uint8 if "uint8" in name else torch.float32)
        assert pixels.shape[:2] == (3, 3)
        assert pixels.shape[2] in sides
        assert [len(target["boxes"]) for target in batch["labels"]] == [1, 1, 1]
        assert all(float(target["boxes"].max()) < 1 for target in batch["labels"])
    plain, cached = found["ours, finished on the CPU"], found["ours, finished on the CPU, cached"]
    assert torch.equal(plain["pixel_values"], cached["pixel_values"])
