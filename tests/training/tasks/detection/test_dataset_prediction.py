"""Boxes for whole data sets: the answers of `predict`, in order, in files that a kill does not spoil."""

import contextlib
import io
import json
import time
from pathlib import Path

import numpy as np
import processes
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vithub.data.boxes.images import read_box_images
from vithub.data.boxes.loading import load_box_data
from vithub.data.boxes.tables import BoxClasses
from vithub.data.images import BadImageError
from vithub.data.sources import DataError
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app, run
from vithub.training.dataset_prediction import predict_dataset
from vithub.training.runtime.progress import QuietReporter
from vithub.training.tasks.detection.dataset_prediction import categories_for

import vithub

WORKER = """
import json, sys
import torch
from vithub.training.dataset_prediction import predict_dataset
torch.set_num_threads(1)
folder, data, out = json.loads(sys.argv[1])
predict_dataset(folder, data, out, rows_per_file=4, batch_size=3, threshold=0.0, workers=0)
"""


@pytest.fixture(scope="module")
def coco(detector_data, tmp_path_factory):
    """The squares as a COCO data set, under the category ids 7 (blue) and 5 (red), and image ids from 100."""
    folder = tmp_path_factory.mktemp("coco")
    images, annotations = [], []
    for number, row in enumerate(detector_data):
        row["image"].save(folder / f"{number:02}.png")
        width, height = row["image"].size
        images.append({"id": 100 + number, "file_name": f"{number:02}.png", "width": width, "height": height})
        for box, kind in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True):
            annotations.append({"id": len(annotations) + 1, "image_id": 100 + number, "category_id": (5, 7)[kind],
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
    categories = [{"id": 7, "name": "blue"}, {"id": 5, "name": "red"}]
    file = folder / "all.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


@pytest.fixture(scope="module")
def predicted(detector_run, coco, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "all"
    return predict_dataset(detector_run.folder, coco, out, rows_per_file=16, batch_size=5, threshold=0.0, workers=0)


def rows(folder):
    return pq.read_table(sorted(folder.glob("part-*.parquet"))).to_pylist()  # in the order of their names


def test_every_image_has_one_row_in_order_and_the_boxes_of_predict(predicted, detector_run, coco):
    table = rows(predicted)
    assert [row["row"] for row in table] == list(range(40))
    assert [row["image_id"] for row in table] == [str(100 + number) for number in range(40)]
    assert [len(pq.read_table(file)) for file in sorted(predicted.glob("part-*"))] == [16, 16, 8]
    assert {(row["width"], row["height"]) for row in table} == {(64, 64), (80, 64)}
    files = [coco.parent / f"{number:02}.png" for number in range(40)]
    for row, answer in zip(table, vithub.predict(detector_run.folder, files, threshold=0.0), strict=True):
        assert row["image"] == answer["image"]
        assert row["scores"] == pytest.approx([entry["score"] for entry in answer["predictions"]], abs=1e-5)
        assert row["labels"][0] == answer["predictions"][0]["label"]
        inside = np.clip(row["boxes"][0], 0, [row["width"], row["height"]] * 2)  # as single images are answered
        assert np.allclose(inside, answer["predictions"][0]["box"], atol=0.02)


def test_cocos_evaluation_of_the_written_file_gives_the_figures_of_evaluate(predicted, detector_run, coco):
    ours = vithub.evaluate(detector_run.folder, coco, "train")["metrics"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco))
        judge = COCOeval(truth, truth.loadRes(str(predicted / "predictions.json")), "bbox")
        judge.params.imgIds = [int(key) for key in load_box_data(coco).train["image_id"]]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[1] > 0.1
    assert [ours["map"], ours["map_50"]] == pytest.approx(judge.stats[:2].tolist(), abs=1e-4)


class Breaking(QuietReporter):
    def __init__(self, after):
        self.after = after

    def advance(self, amount=1, **figures):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def test_a_prediction_broken_off_goes_on_without_doing_anything_twice(predicted, detector_run, coco, tmp_path):
    options = {"rows_per_file": 16, "threshold": 0.0, "workers": 0, "batch_size": 5}
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict_dataset(detector_run.folder, coco, out, reporter=Breaking(6), **options)
    first = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}
    assert sorted(first) == ["part-000000.parquet"]
    assert not (out / "predictions.json").exists()
    with pytest.raises(TargetError, match=r"threshold 0\.0 \(now 0\.5\)"):
        predict_dataset(detector_run.folder, coco, out, resume=True, **options | {"threshold": 0.5})
    predict_dataset(detector_run.folder, coco, out, resume=True, **options)
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    assert rows(out) == rows(predicted)
    assert (out / "predictions.json").read_bytes() == (predicted / "predictions.json").read_bytes()


def test_two_processes_killed_as_a_whole_and_resumed_leave_what_one_does(predicted, detector_run, coco, tmp_path):
    out = tmp_path / "out"
    task = json.dumps([str(detector_run.folder), str(coco), str(out)])
    with processes.Launch(WORKER, [task]) as first:
        while first.poll() is None and len(list(out.glob("part-*.parquet"))) < 2:
            time.sleep(0.01)
        first.kill()
    done = processes.launch(WORKER.replace("workers=0", "workers=0, resume=True"), [task])
    assert done.returncode == 0, done.stderr[-3000:]
    for both, one in zip(rows(out), rows(predicted), strict=True):
        assert both["row"] == one["row"]
        assert both["scores"] == pytest.approx(one["scores"], abs=1e-5)
        assert np.allclose(both["boxes"][0], one["boxes"][0], atol=1e-3)
    assert len(json.loads((out / "predictions.json").read_text())) == sum(len(row["scores"]) for row in rows(out))


def test_an_image_that_cannot_be_decoded_is_an_error_or_an_empty_row(detector_run, damaged_squares, tmp_path):
    with pytest.raises(BadImageError, match=r"4\.jpg|row 4"):
        predict_dataset(detector_run.folder, damaged_squares, tmp_path / "stops", workers=0)
    out = predict_dataset(detector_run.folder, damaged_squares, tmp_path / "on", workers=0, on_bad_image="skip")
    table = rows(out)
    assert [row["row"] for row in table if row["error"]] == [4, 9]
    for row in table:
        empty = {name for name, value in row.items() if value is None}
        assert empty >= ({"boxes", "labels", "scores", "width", "height"} if row["error"] else {"error"})
        assert row["error"] or all(score >= 0.5 for score in row["scores"])


def test_images_without_boxes_are_called_by_their_row(detector_run, coco, predicted, tmp_path):
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number, place in ((3, "b.png"), (8, "more/a.png")):
        (tmp_path / "photos" / place).write_bytes((coco.parent / f"{number:02}.png").read_bytes())
    out = predict_dataset(detector_run.folder, tmp_path / "photos", tmp_path / "out", threshold=0.0, workers=0)
    table, whole = rows(out), rows(predicted)
    assert [(row["image_id"], Path(row["image"]).name) for row in table] == [("0", "b.png"), ("1", "a.png")]
    assert [row["scores"] for row in table] == [pytest.approx(whole[n]["scores"], abs=1e-6) for n in (3, 8)]
    about = json.loads((out / "about.json").read_text())
    assert about["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read_box_images(tmp_path / "empty")


def test_categories_are_those_of_the_data_and_others_get_free_ids():
    assert categories_for(["b", "x", "a", "y"], BoxClasses(("a", "b"), (3, 90))) == [90, 91, 3, 92]
    assert categories_for(["b", "a"], BoxClasses(("a", "b"), ("a", "b"))) == [2, 1]
    assert categories_for(["b", "a"], None) == [1, 2]


def test_the_command_writes_them_and_refuses_what_a_detector_has_not(detector_run, coco, tmp_path, capsys):
    command = ["predict", str(detector_run.folder), "--data", str(coco), "--threshold", "0.2"]
    assert run(lambda: app([*command, "--output", str(tmp_path / "out")])) == 0
    assert "predictions are in" in capsys.readouterr().out
    scores = [score for row in rows(tmp_path / "out") for score in row["scores"]]
    assert scores
    assert min(scores) >= 0.2
    assert run(lambda: app([*command, "--embeddings", "--output", str(tmp_path / "no")])) == 1
    assert "is a detector" in capsys.readouterr().err
