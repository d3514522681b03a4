import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from vithub.data.boxes.pictures import color_of
from vithub.data.boxes.sources import read_box_source
from vithub.data.boxes.tables import BoxClasses
from vithub.training.tasks.detection.coco_results import coco_results, save_coco_results
from vithub.training.tasks.detection.detections import Detections
from vithub.training.tasks.detection.error_kinds import count_errors
from vithub.training.tasks.detection.metrics import DetectionMetrics
from vithub.training.tasks.detection.plots import (
    detection_picture,
    save_detections,
    save_error_kinds,
    save_precision_recall,
)

from .test_metrics import BOX, many, truth


@pytest.fixture(autouse=True)
def blank_pictures():
    """Here they are looked at."""


def colors_of(file):
    with Image.open(file) as picture:
        return {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()}


def rgb(text):
    return tuple(int(text[start : start + 2], 16) for start in (1, 3, 5))


@pytest.mark.parametrize("labels", [1, 40])
def test_curves_and_errors_of_few_and_many_classes_are_drawn(labels, tmp_path):
    pairs = many(12, labels) if labels > 1 else [(Detections.best([BOX], [0.9], [0]), truth([BOX], [0]))]
    counts = DetectionMetrics(labels)
    counts.update(range(len(pairs)), *zip(*pairs, strict=True))
    names = [f"a $strange$ 名 {number}" for number in range(labels)]
    save_precision_recall(counts.curves(), names, tmp_path / "curves.png")
    save_error_kinds(count_errors(pairs, labels), names, tmp_path / "errors.png")
    assert (0, 0, 0) in colors_of(tmp_path / "curves.png")
    assert rgb("#009E73") in colors_of(tmp_path / "errors.png")


def test_nothing_found_and_nothing_there_is_drawn_too(tmp_path):
    pairs = [(Detections.best(np.empty((0, 4)), [], []), truth())]
    counts = DetectionMetrics(2)
    counts.update([0], *zip(*pairs, strict=True))
    save_precision_recall(counts.curves(), ["a", "b"], tmp_path / "curves.png")
    save_error_kinds(count_errors(pairs, 2), ["a", "b"], tmp_path / "errors.png")
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "errors.png").is_file()


def test_found_boxes_above_the_threshold_are_drawn_where_they_are(tmp_path):
    image = Image.new("RGB", (200, 200))
    found = Detections.best([BOX, [100, 100, 190, 190]], [0.9, 0.2], [0, 1])
    picture = np.asarray(detection_picture(image, found, ["a", "b"], 0.5))
    assert tuple(picture[30, 10]) == rgb(color_of(0))
    assert not picture[140, 100].any()
    assert tuple(np.asarray(detection_picture(image, found, ["a", "b"], 0.1))[140, 100]) == rgb(color_of(1))
    both = detection_picture(image, found, ["a", "b"], 0.5, truth([[50, 50, 90, 90]], [1]))
    assert both.size == (408, 200)
    assert tuple(np.asarray(both)[70, 208 + 50]) == rgb(color_of(1))
    save_detections([(image, found, truth())], ["a", "b"], 0.5, tmp_path / "found.png")
    assert rgb(color_of(0)) in colors_of(tmp_path / "found.png")


def test_results_are_what_cocos_tools_load_under_the_ids_of_the_source(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 200}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 10, 50, 50], "area": 2500}],
        "categories": [{"id": 3, "name": "a"}, {"id": 90, "name": "b"}],
    }
    (tmp_path / "true.json").write_text(json.dumps(content))
    source = read_box_source(tmp_path / "true.json")
    classes = BoxClasses(tuple(source.categories.values()), tuple(source.categories), integer_image_ids=True)
    entries = coco_results(["7"], [Detections.best([BOX], [0.75], [1])], classes)
    save_coco_results(entries, tmp_path / "found.json")
    loaded = COCO(str(tmp_path / "true.json")).loadRes(str(tmp_path / "found.json"))
    assert [(a["image_id"], a["category_id"], a["bbox"], a["score"]) for a in loaded.anns.values()] == [
        (7, 90, [10, 10, 50, 50], 0.75)
    ]
    named = BoxClasses(("cat", "dog"), ("cat", "dog"))
    (entry,) = coco_results(["a7"], [Detections.best([BOX], [0.75], [1])], named)
    assert (entry["image_id"], entry["category_id"]) == ("a7", 2)
