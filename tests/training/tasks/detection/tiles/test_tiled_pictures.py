"""Prediction and evaluation in tiles: exact where a picture fits one tile, and better where objects are small."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app, run
from vithub.training.dataset_prediction import predict_dataset
from vithub.training.tasks import partial_counts
from vithub.training.tasks.detection.image_prediction import SupervisionMissingError

import vithub

SIDE = 64


@pytest.fixture(scope="module")
def mosaics(detector_data):
    """Six pictures of 2 x 2 and of 1 x 3 images of 64 x 64 with squares, which the detector knows alone."""
    alone = [row for row in detector_data if row["image"].size == (SIDE, SIDE)]
    images, objects = [], []
    for number in range(6):
        tall, wide = ((2, 2), (1, 3))[number % 2]
        picture, boxes, kinds = Image.new("RGB", (SIDE * wide, SIDE * tall)), [], []
        for place in range(tall * wide):
            row = alone[(3 * number + place) % len(alone)]
            left, top = SIDE * (place % wide), SIDE * (place // wide)
            picture.paste(row["image"], (left, top))
            for box, kind in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True):
                boxes.append([box[0] + left, box[1] + top, *box[2:]])
                kinds.append(kind)
        images.append(picture)
        objects.append({"bbox": boxes, "category": kinds})
    return Dataset.from_dict({"image": images, "objects": objects}, features=detector_data.features)


@pytest.fixture(scope="module")
def files(mosaics, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mosaics")
    for number, row in enumerate(mosaics):
        row["image"].save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def boxes_of(answers):
    return [answer["predictions"] for answer in answers]


def test_pictures_that_fit_one_tile_get_the_same_boxes_to_the_bit(detector_run, mosaics, files, tmp_path, caplog):
    folder, size = detector_run.folder, f"{2 * SIDE}x{3 * SIDE}"
    for name, options in {"plain": {}, "tiled": {"tiles": size, "tile_merge": "nms-iou", "tiles_only": True}}.items():
        vithub.evaluate(folder, mosaics, "train", output=tmp_path / name, workers=0, **options)
        predict_dataset(folder, mosaics, tmp_path / f"{name} rows", threshold=0.0, workers=0, **options)
    plain, tiled = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "tiled"))
    assert (tmp_path / "tiled/predictions.json").read_bytes() == (tmp_path / "plain/predictions.json").read_bytes()
    assert tiled.pop("tiles") == {"tile_hw": [128, 192], "overlap": 0.2, "merge": "nms-iou", "full_picture": False}
    del plain["metrics"]["loss"]
    assert tiled == plain
    rows = [pq.read_table(tmp_path / f"{name} rows/part-000000.parquet") for name in ("plain", "tiled")]
    assert rows[0].equals(rows[1])
    before, after = (vithub.predict(folder, files, threshold=0.0, **options) for options in ({}, {"tiles": size}))
    assert after == before
    assert [one.found.boxes.tobytes() for one in after] == [one.found.boxes.tobytes() for one in before]
    text = f"6 of 6 pictures fit one tile of {size} pixels, seen whole: `tiles` {size} changed nothing"
    assert [record.message for record in caplog.records if "fit" in record.message] == [
        text.replace("6 of 6", f"{count} of {count}") for count in (plain["images"], 6, 6)
    ]


def test_small_objects_of_large_pictures_are_found_in_tiles(detector_run, mosaics, caplog):
    whole = vithub.evaluate(detector_run.folder, mosaics, "train", workers=0)["metrics"]
    found = vithub.evaluate(detector_run.folder, mosaics, "train", workers=0, tiles=SIDE)
    assert found["metrics"]["map_50"] > whole["map_50"] + 0.1
    assert "loss" not in found["metrics"]
    assert not [record for record in caplog.records if "fit" in record.message]


def test_the_three_ways_to_predict_agree_in_tiles(detector_run, mosaics, files, tmp_path):
    options = {"tiles": SIDE, "tile_overlap": 0.3}
    answers = vithub.predict(detector_run.folder, files, threshold=0.1, **options)
    out = predict_dataset(detector_run.folder, mosaics, tmp_path / "rows", threshold=0.1, workers=0, **options)
    for answer, row in zip(answers, pq.read_table(out / "part-000000.parquet").to_pylist(), strict=True):
        assert len(answer["predictions"]) == len(row["scores"]) > 0
        assert answer.found.scores == pytest.approx(row["scores"], abs=1e-5)
        assert np.allclose(answer.found.boxes, row["boxes"], atol=1e-3)
        assert (np.array(row["boxes"]) >= 0).all()
        assert (np.array(row["boxes"]) <= [row["width"], row["height"]] * 2).all()
    assert json.loads((out / "about.json").read_text())["tiles"]["tile_hw"] == [SIDE, SIDE]
    vithub.evaluate(detector_run.folder, mosaics, "train", output=tmp_path / "all", workers=0, **options)
    every = json.loads((tmp_path / "all/predictions.json").read_text())
    for number, answer in enumerate(answers):
        scores = [one["score"] for one in every if str(one["image_id"]) == str(number) and one["score"] >= 0.1]
        if scores:  # the images of the split
            assert scores == pytest.approx(answer.found.scores, abs=1e-5)


def test_tiles_and_the_whole_are_seen_once_each_and_merged_boxes_are_theirs(detector_run, files):
    """Without overlap and without the whole, tiles of the mosaic's own parts give what the parts give."""
    image = Image.open(files[0]).convert("RGB")
    (found,) = vithub.predict(detector_run.folder, files[0], threshold=0.3, tiles=SIDE, tile_overlap=0, tiles_only=True)
    expected = []
    for left, top in ((0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)):
        part = files[0].parent / "part.jpg"
        image.crop((left, top, left + SIDE, top + SIDE)).save(part, format="PNG")
        (own,) = vithub.predict(detector_run.folder, part, threshold=0.3)
        part.unlink()
        expected += (own.found.boxes + np.array([left, top, left, top])).tolist()
    assert len(found.found) == len(expected) > 0
    assert np.allclose(sorted(found.found.boxes.tolist()), sorted(expected), atol=1e-3)


def test_a_classifier_refuses_tiles_by_option_and_task(finished_run, digit_folders, tmp_path, capsys):
    picture = next(digit_folders.rglob("*.png"))
    with pytest.raises(ValueError, match=r"`tiles` 64x64 has no effect on a model for classification: only detectors"):
        vithub.predict(finished_run.folder, picture, tiles=64)
    data = ["--data", str(digit_folders)]
    for name, *rest in (
        ["predict", str(picture)], ["predict", *data, "--output", str(tmp_path / "out")], ["evaluate", *data],
    ):  # fmt: skip
        command = [name, str(finished_run.folder), *rest, "--tiles", "64"]
        assert run(lambda command=command: app(command)) == 1
        assert "--tiles 64x64 has no effect on a model for classification" in capsys.readouterr().err
    assert run(lambda: app(["evaluate", str(finished_run.folder), "--tile-overlap", "0.3"])) == 1
    assert "--tile-overlap has no effect without --tiles" in capsys.readouterr().err


def test_the_commands_look_in_tiles_and_say_so(detector_run, files, mosaics, tmp_path, capsys):
    options = ["--tiles", f"{SIDE}x{SIDE}", "--tile-overlap", "0.25", "--tile-merge", "nms-ios"]
    assert run(lambda: app(["predict", str(detector_run.folder), str(files[0]), "--json", *options])) == 0
    (answer,) = vithub.predict(detector_run.folder, files[0], tiles=SIDE, tile_overlap=0.25, tile_merge="nms-ios")
    assert json.loads(capsys.readouterr().out) == answer
    mosaics.to_parquet(tmp_path / "train-00000.parquet")
    command = ["evaluate", str(detector_run.folder), "--data", str(tmp_path), "--split", "train", "--workers", "0"]
    assert run(lambda: app([*command, *options])) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "seen in tiles of 64 x 64 pixels that overlap by 0.25, and as a whole; nms-ios" in said


def test_an_evaluation_in_other_tiles_does_not_go_on_with_the_counts(detector_run, mosaics, tmp_path, monkeypatch):
    monkeypatch.setattr(partial_counts, "EVERY", 1)
    monkeypatch.setattr(partial_counts.PartialCounts, "remove", lambda self: None)
    options = {"split": "train", "workers": 0, "output": tmp_path / "out", "resume": True}
    vithub.evaluate(detector_run.folder, mosaics, tiles=SIDE, **options)
    (tmp_path / "out").rename(tmp_path / "first")
    with pytest.raises(TargetError, match="counts of another evaluation"):
        vithub.evaluate(detector_run.folder, mosaics, tiles=SIDE, tile_overlap=0.3, **options)


@pytest.fixture
def prediction(detector_run, files):
    (found,) = vithub.predict(detector_run.folder, files[0], tiles=SIDE, threshold=0.2)
    return found


def test_predictions_become_detections_of_supervision(detector_run, prediction, files, tmp_path):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    made = prediction.to_supervision()
    assert isinstance(made, supervision.Detections)
    assert np.allclose(made.xyxy, [entry["box"] for entry in prediction["predictions"]], atol=0.01)
    assert made.confidence == pytest.approx([entry["score"] for entry in prediction["predictions"]])
    assert made.data["class_name"].tolist() == [entry["label"] for entry in prediction["predictions"]]
    labels = detector_run.model.config.id2label
    assert [labels[number] for number in made.class_id] == made.data["class_name"].tolist()
    assert len(made[made.confidence > 2]) == 0
    in_memory = vithub.load(detector_run.folder).predict(files[0], threshold=0.2).to_supervision()
    (whole,) = vithub.predict(detector_run.folder, files[0], threshold=0.2)
    assert np.allclose(in_memory.xyxy, whole.to_supervision().xyxy, atol=1e-3)
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    (nothing,) = vithub.predict(detector_run.folder, tmp_path / "black.png", threshold=1.0)
    merged = supervision.Detections.merge([made, nothing.to_supervision()])
    assert len(nothing.to_supervision()) == 0
    assert len(merged) == len(made) > 0


def test_without_supervision_and_without_an_image_the_conversion_says_so(
    prediction, detector_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(SupervisionMissingError, match="needs the package supervision: pip install supervision"):
        prediction.to_supervision()
    (tmp_path / "bad.png").write_bytes(b"no image")
    (bad,) = vithub.predict(detector_run.folder, tmp_path / "bad.png", on_bad_image="skip")
    with pytest.raises(ValueError, match=r"no boxes to convert: .*bad\.png"):
        bad.to_supervision()
