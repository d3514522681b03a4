"""Data sets of boxes in each kind of source, with the same content."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

# image: (width, height), then boxes as corners with their classes
SCENES = [
    ((64, 48), [((4, 6, 20, 30), 0), ((30, 10, 64, 40), 1)]),
    ((48, 64), [((0, 0, 48, 64), 1)]),
    ((80, 40), []),
    ((60, 60), [((10, 20, 30, 50), 0), ((35, 2, 58, 25), 2), ((40, 30, 55, 58), 0)]),
    ((70, 50), [((2, 3, 11, 9), 2), ((20, 10, 69, 49), 1), ((12, 15, 33, 47), 0)]),
    ((40, 80), [((1, 1, 10, 10), 0), ((5, 40, 38, 78), 1)]),
    ((64, 48), [((50, 30, 60, 46), 2)]),
    ((64, 48), [((3, 20, 33, 40), 0), ((40, 5, 50, 12), 1)]),
]
NAMES = ("cat", "dog", "bird")


def scene_image(number):
    """Noise of its own in the size of a scene."""
    (width, height), _ = SCENES[number]
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8))


def coco_content(ids=(3, 7, 90)):
    """The scenes as a COCO file; category ids with gaps."""
    images, annotations = [], []
    for number, ((width, height), objects) in enumerate(SCENES):
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": width, "height": height})
        for (left, top, right, bottom), category in objects:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": ids[category], "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in zip(ids, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def coco(tmp_path):
    """Writes a COCO folder, changed by a function of its content; returns the file."""

    def make(change=None, folder="coco"):
        content = coco_content()
        if change is not None:
            change(content)
        for number in range(len(SCENES)):
            file = tmp_path / folder / "images" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            scene_image(number).save(file)
        target = tmp_path / folder / "annotations.json"
        target.write_text(json.dumps(content))
        return target

    return make


@pytest.fixture
def voc(tmp_path):
    """Writes a Pascal VOC folder; `first` is the number of the first pixel."""

    def make(first=1, sets=None):
        root = tmp_path / "voc"
        (root / "Annotations").mkdir(parents=True)
        (root / "JPEGImages").mkdir()
        for number, ((width, height), objects) in enumerate(SCENES):
            scene_image(number).save(root / "JPEGImages" / f"{number}.png")
            boxes = "".join(
                f"<object><name>{NAMES[category]}</name><difficult>0</difficult><bndbox><xmin>{left + first}</xmin>"
                f"<ymin>{top + first}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                for (left, top, right, bottom), category in objects
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{number}.png</filename>{size}{boxes}</annotation>"
            (root / "Annotations" / f"{number}.xml").write_text(text)
        for name, stems in (sets or {}).items():
            (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
            (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(map(str, stems)))
        return root

    return make


@pytest.fixture
def yolo(tmp_path):
    """Writes a YOLO folder with `data.yaml`; `first` is the number of the first class."""

    def make(first=0, described=True):
        root = tmp_path / "yolo"
        (root / "images" / "train").mkdir(parents=True)
        (root / "labels" / "train").mkdir(parents=True)
        for number, ((width, height), objects) in enumerate(SCENES):
            scene_image(number).save(root / "images" / "train" / f"{number}.png")
            lines = [
                f"{category + first} {(left + right) / 2 / width:.9f} {(top + bottom) / 2 / height:.9f} "
                f"{(right - left) / width:.9f} {(bottom - top) / height:.9f}"
                for (left, top, right, bottom), category in objects
            ]
            if lines:
                (root / "labels" / "train" / f"{number}.txt").write_text("\n".join(lines) + "\n")
        if described:
            (root / "data.yaml").write_text(f"train: images/train\nnc: 3\nnames: [{', '.join(NAMES)}]\n")
        return root

    return make


@pytest.fixture
def table():
    """Makes a table with a column of objects; `change` alters its rows, `category` is the type of the classes."""

    def make(change=None, category=None, box=None, **fields):
        rows = []
        for number, ((width, height), objects) in enumerate(SCENES):
            boxes = [[left, top, right - left, bottom - top] for (left, top, right, bottom), _ in objects]
            lists = {"bbox": boxes, "category": [number for _, number in objects]}
            rows.append({"image": scene_image(number), "width": width, "height": height, "objects": lists})
        if change is not None:
            change(rows)
        kinds = {"bbox": List(List(Value("float64"))), "category": List(category or ClassLabel(names=list(NAMES)))}
        features = {"image": ImageFeature(), "width": Value("int64"), "height": Value("int64"),
                    "objects": kinds | fields}  # fmt: skip
        return Dataset.from_list(rows, features=Features(features))

    return make


@pytest.fixture
def scenes():
    """What all of these hold."""
    return SCENES
