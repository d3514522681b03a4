"""Commands that meet images that cannot be decoded, and commands that are told to end."""

import json
import signal
import sys
import time

import numpy as np
import processes
import pytest
import torch
from PIL import Image
from vithub.data.boxes.dataset import build_box_processor
from vithub.data.image_processing import build_image_processor
from vithub.scripts.command_line import app, run

import vithub


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command as a shell would, and gives exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vithub", *map(str, arguments)])
        code = run(app)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def place(tiny, tiny_detr, randomised, tmp_path_factory):
    """A classifier, a detector, and a folder of photos of which the second is cut short and the fourth is no image."""
    root = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    labels = {"num_labels": 2, "id2label": {number: f"class {number}" for number in range(2)}}
    randomised(vithub.HubViTForImageClassification(tiny(**labels))).save_pretrained(root / "classifier")
    build_image_processor((32, 32)).save_pretrained(root / "classifier")
    randomised(vithub.HubDetrForObjectDetection(tiny_detr(**labels))).save_pretrained(root / "detector")
    build_box_processor(64, 64).save_pretrained(root / "detector")
    draws = np.random.default_rng(0)
    (root / "photos").mkdir()
    for number in range(5):
        pixels = draws.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{number}.png")
        (root / "data" / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "data" / f"class {number % 2}" / f"{number}.png")
    whole = (root / "photos" / "1.png").read_bytes()
    (root / "photos" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "photos" / "3.png").write_bytes(b"this is no image")
    return root


@pytest.mark.parametrize("model", ["classifier", "detector"])
@pytest.mark.parametrize("skip", [False, True])
def test_predict_answers_the_others_and_lists_the_bad(model, skip, place, command, tmp_path):
    detects = model == "detector"
    options = ["--threshold", "0.0"] if detects else ["--batch-size", "2"]
    options += ["--on-bad-image", "skip"] if skip else []
    code, text, errors = command("predict", place / model, place / "photos", "--json", *options)
    assert code == (0 if skip else 1)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["image"] for line in lines] == [str(place / "photos" / f"{number}.png") for number in range(5)]
    good = [place / "photos" / f"{number}.png" for number in (0, 2, 4)]
    expected_answers = vithub.predict(place / model, good, **({"threshold": 0.0} if detects else {}))
    for line, alone in zip(lines[::2], expected_answers, strict=True):
        (scores, labels), (others, expected) = (
            zip(*((found["score"], found["label"]) for found in answer["predictions"]), strict=True)
            for answer in (line, alone)
        )
        assert labels == expected
        assert scores == pytest.approx(others, abs=1e-5)  # batches differ
    assert all(lines[number]["predictions"] == [] and "error" in lines[number] for number in (1, 3))
    assert len(errors.strip().splitlines()) == 1
    assert "2 of 5 images could not be decoded" in errors
    assert "1.png" in errors and "3.png: not an image in a known format" in errors  # noqa: PT018
    code, text, errors = command("predict", place / model, place / "photos", *options)
    assert code == (0 if skip else 1)
    assert text.count("could not be decoded") == 2
    if model == "detector":
        code, _, _ = command("predict", place / model, place / "photos", "--output", tmp_path / "found", *options)
        assert code == (0 if skip else 1)
        content = json.loads((tmp_path / "found" / "annotations.json").read_text())
        assert [image["file_name"] for image in content["images"]] == ["0.png", "2.png", "4.png"]


@pytest.mark.parametrize("skip", [False, True])
def test_explain_explains_the_others_and_lists_the_bad(skip, place, command, tmp_path):
    options = ["--on-bad-image", "skip"] if skip else []
    code, text, errors = command(
        "explain", place / "classifier", place / "photos", "--output", tmp_path / "o", *options
    )
    assert code == (0 if skip else 1)
    assert "the report is" in text
    assert "2 of 5 images could not be decoded" in errors
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert [image["image"][-5:] for image in report["images"]] == ["0.png", "2.png", "4.png"]


def test_explain_without_a_single_image_fails(place, command, tmp_path):
    given = [place / "classifier", place / "photos" / "3.png", "--output", tmp_path / "o", "--on-bad-image", "skip"]
    code, text, errors = command("explain", *given)
    assert (code, text) == (1, "")
    assert "1 of 1 images could not be decoded" in errors


def test_options_of_data_sets_are_refused_for_images(place, command):
    for given in (["--embeddings"], ["--resume"], ["--split", "test"]):
        code, _, errors = command("predict", place / "classifier", place / "photos", *given)
        assert code == 2
        assert f"{given[0]} goes with --data alone" in errors
    for name in ("predict", "explain"):
        code, _, errors = command(name, place / "classifier", place / "photos", "--on-bad-image", "ignore")
        assert code == 2
        assert "takes error or skip, got 'ignore'" in errors


def test_printed_boxes_lie_within_their_image(place, command):
    code, text, _ = command("predict", place / "detector", place / "photos" / "0.png", "--threshold", "0", "--json")
    assert code == 0
    boxes = [entry["box"] for entry in json.loads(text)["predictions"]]
    assert len(boxes) > 0
    assert all(0 <= left <= right <= 60 and 0 <= top <= bottom <= 40 for left, top, right, bottom in boxes)


@pytest.mark.parametrize("model", ["classifier", "detector"])
def test_an_evaluation_that_is_ended_leaves_no_half_written_folder(model, place, tmp_path):
    """SIGTERM comes while the results are written, as the hidden folder beside them tells."""
    if model == "detector":
        file = place / "boxes.json"
        images = [{"id": n, "file_name": f"data/class {n % 2}/{n}.png", "width": 60, "height": 40} for n in range(5)]
        boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
                 for n in range(5)]  # fmt: skip
        kinds = [{"id": n + 1, "name": f"class {n}"} for n in range(2)]
        file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    data = place / ("data" if model == "classifier" else "boxes.json")
    arguments = [str(place / model), "--data", str(data), "--split", "train", "--output", str(tmp_path / "out")]
    command = ["evaluate", *arguments, "--workers", "0"]
    with (tmp_path / "errors").open("w") as file, processes.start(processes.COMMAND, command, stderr=file) as process:
        while process.poll() is None and not list(tmp_path.glob(".out-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait()
    errors = (tmp_path / "errors").read_text()
    assert process.returncode in (0, 128 + signal.SIGTERM), errors  # 0: all was written before the signal came
    assert not list(tmp_path.glob(".out-*"))
    if process.returncode:
        assert errors.strip().splitlines()[-1] == "vithub: ended by SIGTERM"
        assert not (tmp_path / "out").exists()
    else:
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 5
