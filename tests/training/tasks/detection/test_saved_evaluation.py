import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from vithub.data.boxes.dataset import build_box_processor
from vithub.data.boxes.loading import load_box_data
from vithub.data.sources import DataError
from vithub.scripts.command_line import app, run
from vithub.training.tasks.detection.saved_evaluation import class_numbers

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
    result = vithub.evaluate(folder, output=tmp_path / "measured")
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
    (above, _) = vithub.predict(folder, photos, threshold=least, output=tmp_path / "found")
    assert above["predictions"] == first["predictions"][:3]
    loaded = COCO(str(tmp_path / "found" / "annotations.json"))
    assert [image["file_name"] for image in loaded.loadImgs([1, 2])] == ["0.png", "1.png"]
    (left, top, width, height) = loaded.loadAnns(loaded.getAnnIds(1))[0]["bbox"]
    assert [left, top, left + width, top + height] == pytest.approx(first["predictions"][0]["box"], abs=0.02)
    with Image.open(tmp_path / "found" / "0001-0.png") as drawn, Image.open(photos[0]) as before:
        assert drawn.size == before.size
        assert np.asarray(drawn).tolist() != np.asarray(before).tolist()
    with pytest.raises(ValueError, match=r"`threshold` must lie in \[0, 1\], got 2"):
        vithub.predict(folder, photos, threshold=2)


def test_a_trained_detector_has_the_same_figures_at_batch_1_and_batch_8(detector_run, detector_data):
    alone, together = (vithub.evaluate(detector_run.folder, detector_data, "train", batch_size=size) for size in (1, 8))
    assert alone["metrics"]["map_50"] > 0.1
    for name, value in alone["metrics"].items():
        assert together["metrics"][name] == (value if value is None else pytest.approx(value, abs=1e-3)), name
    assert together["errors"]["counts"] == alone["errors"]["counts"]


@pytest.fixture
def damaged(blood, tmp_path):
    """The data set with an image that is cut short and one that is missing."""
    folder = shutil.copytree(blood.parent, tmp_path / "damaged")
    with Image.open(folder / "2.png") as image:
        content = io.BytesIO()
        image.save(content, "jpeg")  # whose header tells nothing of what is missing behind it
    (folder / "2.png").write_bytes(content.getvalue()[:-200])
    (folder / "5.png").unlink()
    return folder / "all.json"


def test_evaluation_stops_at_bad_images_or_measures_without_them_and_lists_them(folder, damaged, blood, capsys):
    missing = r"images\[5\] .*no such file.*; on_bad_image='skip' measures without such images and lists them$"
    with pytest.raises(DataError, match=missing):
        vithub.evaluate(folder, damaged, "train")
    options = {"data": damaged, "split": "train", "on_bad_image": "skip"}
    result = vithub.evaluate(folder, **options)
    intact = [row for row, number in enumerate(split_numbers(damaged)) if number != 2]
    assert result["images"] == len(intact)
    assert len(result["bad_images"]) == len(split_numbers(damaged)) - len(intact)
    assert result["boxes"] == 2 * len(intact)
    command = ["evaluate", str(folder), "--data", str(damaged), "--split", "train", "--on-bad-image", "skip"]
    assert run(lambda: app(command)) == 0
    assert ("could not be decoded" in " ".join(capsys.readouterr().out.split())) == bool(result["bad_images"])
    with pytest.raises(ValueError, match="`on_bad_image` must be 'error' or 'skip', got 'ignore'"):
        vithub.evaluate(folder, on_bad_image="ignore")


def split_numbers(file):
    """The images of the training split that is drawn from a file, by their numbers."""
    table = load_box_data(file, bad_share=1.0).train
    return [int(row["image_id"]) - 10 for row in table]


def test_a_run_that_repaired_its_boxes_is_evaluated_on_them(folder, blood, tmp_path):
    """What the recipe says of reading the data holds in evaluation too."""
    content = json.loads(blood.read_text())
    for entry in content["annotations"]:
        entry["bbox"] = [40, 30, 60, 40] if entry["category_id"] == 90 else entry["bbox"]
    data = shutil.copytree(blood.parent, tmp_path / "data") / "all.json"
    data.write_text(json.dumps(content))
    run_folder = shutil.copytree(folder, tmp_path / "run")
    recipe = (folder / "recipe.yaml").read_text().replace(str(blood), str(data))
    (run_folder / "recipe.yaml").write_text(recipe)
    with pytest.raises(DataError, match="repair"):
        vithub.evaluate(run_folder)
    (run_folder / "recipe.yaml").write_text(recipe + "  repair_boxes: true\n")
    assert vithub.evaluate(run_folder)["boxes"] == 4


def test_the_commands_know_detectors(folder, blood, tmp_path, capsys):
    assert run(lambda: app(["evaluate", str(folder), "--data", str(blood), "--split", "validation"])) == 0
    told = capsys.readouterr().out
    assert "mAP" in told
    assert "AP50" in told
    photo = str(blood.parent / "0.png")
    command = ["predict", str(folder), photo, "--threshold", "0", "--output", str(tmp_path / "drawn")]
    assert run(lambda: app(command)) == 0
    assert "left, top" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "drawn" / "annotations.json").is_file()
    assert run(lambda: app([*command[:3], "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["image"] == photo


def test_the_column_of_objects_may_be_named_and_files_without_columns_refuse_it(folder, blood, detector_data):
    from datasets import Dataset

    first = vithub.evaluate(folder, blood, "train")
    with pytest.raises(
        DataError, match=r"is read as COCO, which has no columns: `objects_column` 'boxes' has no effect"
    ):
        vithub.evaluate(folder, blood, "train", label_column="boxes")
    read = load_box_data(blood)
    rows = [row for split in ("train", "validation", "test") for row in read.splits[split]]

    def objects(row, shift):
        boxes = [[left + shift, top, right - left, bottom - top] for left, top, right, bottom in row["boxes"]]
        return {"bbox": boxes, "category": [NAMES[number] for number in row["classes"]]}

    table = Dataset.from_dict({
        "image": [row["image"] for row in rows],
        "objects": [objects(row, 0.0) for row in rows],
        "shifted": [objects(row, 3.0) for row in rows],
    })  # fmt: skip
    found = [vithub.evaluate(folder, table, "train", label_column=name)["metrics"] for name in ("objects", "shifted")]
    assert found[0] != found[1]
    assert first["images"] > 0


@pytest.mark.parametrize("option", [{"top": 3}, {"batch_size": 4}])
def test_options_of_classifiers_are_refused_for_a_detector(option, folder, blood):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"`{name}` {value} has no effect on a detector"):
        vithub.predict(folder, blood.parent / "0.png", **option)
