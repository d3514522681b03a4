import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from vithub.data.box_dataset import build_box_processor
from vithub.data.sources import DataError
from vithub.scripts.command_line import app, run
from vithub.training.detection_run import class_numbers

import vithub

NAMES = ("cell", "rod")


@pytest.fixture(scope="module")
def blood(tmp_path_factory):
    """A COCO data set of six images with one box of each class, under the ids 3 and 90."""
    folder = tmp_path_factory.mktemp("blood")
    draws, images, annotations = np.random.default_rng(0), [], []
    for number in range(6):
        size = ((64, 48), (48, 64))[number % 2]
        Image.fromarray(draws.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(folder / f"{number}.png")
        images.append({"id": 10 + number, "file_name": f"{number}.png", "width": size[0], "height": size[1]})
        for key, box in ((3, [4, 5, 20, 20]), (90, [20, 20, 24, 18])):
            annotations.append({"id": len(annotations), "image_id": 10 + number, "category_id": key, "bbox": box,
                                "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    categories = [{"id": 3, "name": NAMES[0]}, {"id": 90, "name": NAMES[1]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


@pytest.fixture(scope="module")
def folder(tiny_detr, randomised, tmp_path_factory, blood):
    """A saved detector with its recipe's data."""
    place = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}
    randomised(vithub.HubDetrForObjectDetection(tiny_detr(num_labels=2, **labels))).save_pretrained(place)
    build_box_processor(48, 96).save_pretrained(place)
    values = f"data:\n  source: {blood}\n  validation_fraction: 0.34\n  test_fraction: 0.33\n  split_seed: 1\n"
    (place / "recipe.yaml").write_text(values)
    return place


def test_evaluate_measures_a_detector_on_its_own_split_and_leaves_files(folder, blood, tmp_path):
    result = vithub.evaluate(folder, out=tmp_path / "measured")
    assert (result["split"], result["images"], result["boxes"]) == ("test", 2, 4)
    assert set(result["metrics"]) >= {"map", "map_50", "mar_100", "loss"}
    assert [row["label"] for row in result["per_class"]] == list(NAMES)
    counts = result["errors"]["counts"]
    assert counts["missed"] <= 4
    written = {file.name for file in (tmp_path / "measured").iterdir()}
    assert written == {"metrics.json", "predictions.json", "precision_recall.png", "errors.png",
                       "confusion_matrix.png", "detections.png"}  # fmt: skip
    loaded = COCO(str(blood)).loadRes(str(tmp_path / "measured" / "predictions.json"))
    assert {entry["category_id"] for entry in loaded.anns.values()} <= {3, 90}
    assert len({entry["image_id"] for entry in loaded.anns.values()}) == 2
    again = vithub.evaluate(folder, batch_size=1)
    assert again["metrics"] == pytest.approx(result["metrics"], abs=1e-3)
    with pytest.raises(DataError, match="no split 'training'"):
        vithub.evaluate(folder, split="training")


def test_classes_are_matched_by_name():
    assert class_numbers(("a", "b"), {0: "a", 1: "b"}) is None
    assert class_numbers(("a", "b"), {0: "b", 1: "c", 2: "a"}) == [1, -1, 0]
    with pytest.raises(DataError, match="does not know the class c; it knows a, b"):
        class_numbers(("a", "c"), {0: "a", 1: "b"})


def test_predict_finds_boxes_draws_them_and_writes_cocos_format(folder, blood, tmp_path):
    photos = [blood.parent / "0.png", blood.parent / "1.png"]
    (first, second) = vithub.predict(folder, photos, threshold=0.0)
    assert len(first["predictions"]) == len(second["predictions"]) > 0
    scores = [entry["score"] for entry in first["predictions"]]
    assert scores == sorted(scores, reverse=True)
    least = scores[2]
    (above, _) = vithub.predict(folder, photos, threshold=least, out=tmp_path / "found")
    assert above["predictions"] == first["predictions"][:3]
    loaded = COCO(str(tmp_path / "found" / "predictions.json"))
    assert [image["file_name"] for image in loaded.loadImgs([1, 2])] == ["0.png", "1.png"]
    (left, top, width, height) = loaded.loadAnns(loaded.getAnnIds(1))[0]["bbox"]
    assert [left, top, left + width, top + height] == pytest.approx(first["predictions"][0]["box"], abs=0.02)
    with Image.open(tmp_path / "found" / "0001-0.png") as drawn, Image.open(photos[0]) as before:
        assert drawn.size == before.size
        assert np.asarray(drawn).tolist() != np.asarray(before).tolist()
    with pytest.raises(ValueError, match=r"`threshold` must lie in \[0, 1\], got 2"):
        list(vithub.predict(folder, photos, threshold=2))


def test_the_commands_know_detectors(folder, blood, tmp_path, capsys):
    assert run(lambda: app(["evaluate", str(folder), "--data", str(blood), "--split", "validation"])) == 0
    told = capsys.readouterr().out
    assert "mAP" in told
    assert "AP50" in told
    photo = str(blood.parent / "0.png")
    command = ["predict", str(folder), photo, "--threshold", "0", "--output", str(tmp_path / "drawn")]
    assert run(lambda: app(command)) == 0
    assert "left, top" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "drawn" / "predictions.json").is_file()
    assert run(lambda: app([*command[:3], "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["image"] == photo
