"""A dry run: what it tells is true of the run that follows, which it does not change."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from vithub.data.boxes.pictures import COLORS
from vithub.hub.push.files import select_files
from vithub.scripts.command_line import app, run
from vithub.training.trial.dry_run_text import dry_run_text

import vithub


@pytest.fixture(scope="module")
def rehearsed(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(folder, dry_run=True)


@pytest.fixture(scope="module")
def followed(rehearsed, train):
    """The run that follows the dry run into the same folder."""
    return train(rehearsed.folder)


def test_the_run_that_follows_is_the_one_that_was_rehearsed(rehearsed, followed, losses_of):
    assert followed.losses[:7] == losses_of(7)  # as without a dry run
    assert 3 <= len(rehearsed.losses) < 14
    assert rehearsed.losses == followed.losses[: len(rehearsed.losses)]
    told, metrics = rehearsed.metrics, followed.metrics
    assert told["steps"] == metrics["history"][-1]["step"] == 14
    assert told["epochs"] == len(metrics["history"])
    assert told["parameters"] == metrics["parameters"]
    assert told["batch_size"] == metrics["batch_size"]
    assert told["data"]["sizes"] == metrics["data"]["sizes"]


def test_the_picture_stays_with_the_run_and_is_not_published(rehearsed, followed):
    (picture,) = (one for one in select_files(followed.folder) if one.path == "dry_run.png")
    assert (picture.sent, picture.why) == (False, "images of the data set, as a dry run shows them")


def test_nothing_is_left_but_the_picture(train, tmp_path):
    folder = tmp_path / "run"
    told = train(folder, {"training.checkpoint_steps": 1, "training.trackers": None}, dry_run=True).metrics
    assert [path.name for path in folder.iterdir()] == ["dry_run.png"]
    assert told["picture"] == str(folder / "dry_run.png")
    with Image.open(folder / "dry_run.png") as picture:
        assert np.asarray(picture).std() > 10


def test_what_was_found_in_the_data_is_in_it(rehearsed, digit_folders):
    data = rehearsed.metrics["data"]
    for name in data["classes"]["train"]:
        assert sum(data["classes"][split][name] for split in data["sizes"]) == len(
            list((digit_folders / name).iterdir())
        )
    with Image.open(next(digit_folders.rglob("*.png"))) as image:
        size = (image.height, image.width)
    sizes = data["image_sizes"]["train"]
    assert (sizes["smallest"], sizes["largest"], sizes["images"]) == (size, size, data["sizes"]["train"])


def test_the_estimate_is_the_sum_of_what_it_rests_on(rehearsed):
    told = rehearsed.metrics
    estimate, parts = told["estimate"], told["estimate"]["parts"]
    assert estimate["seconds"] == pytest.approx(sum(parts.values()))
    first, step = told["first_step_seconds"], told["seconds_per_step"]
    assert parts["steps"] == pytest.approx(first + 13 * step)
    each, *last = estimate["rests_on"]["evaluations"]
    assert each["of"] == told["data"]["sizes"]["validation"]
    assert parts["evaluations"] == pytest.approx(2 * each["seconds"] * each["of"] / each["images"])
    assert [one["split"] for one in last] == ["validation", "test"]
    assert told["peak_memory_mb"] > 100  # the libraries alone take that
    assert told["fits"] is None  # on the CPU


def test_the_text_tells_the_numbers(rehearsed):
    told = rehearsed.metrics
    text = dry_run_text(told)
    for expected in ("280 train, 40 validation, 80 test images", "14 of 40 images: 2 epochs of 7 steps", "zero ",
                     "all 8 x 8", f"{told['peak_memory_mb']:.0f} MiB", told["picture"]):  # fmt: skip
        assert expected in text
    told = {**told, "fits": {"images": 8, "of": 40, "limit": "100 MiB", "tried": []}}
    assert "8 of the 40 images of a step at once, by measured trials (limit 100 MiB)" in dry_run_text(told)


def test_a_detector_is_rehearsed_with_its_boxes(detector_data, quick_detector, tmp_path):
    told = vithub.finetune(
        data=detector_data, output=tmp_path / "run", preset="detr-small-data", values=quick_detector(), dry_run=True
    ).metrics
    boxes = [kind for row in detector_data["objects"] for kind in row["category"]]
    found = told["data"]["classes"]
    assert {name: sum(split[name] for split in found.values()) for name in ("red", "blue")} == {
        "red": boxes.count(0), "blue": boxes.count(1),
    }  # fmt: skip
    assert "with training boxes: red" in dry_run_text(told)
    with Image.open(told["picture"]) as picture:
        colors = {tuple(color) for color in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {tuple(bytes.fromhex(COLORS[kind][1:])) for kind in (0, 1)} & colors


@pytest.mark.parametrize("method", ["mae", "dino"])
def test_pretraining_is_rehearsed_without_classes(method, pretrained, tmp_path):
    run = pretrained(tmp_path / "run", method, {"training.epochs": 1}, dry_run=True)
    assert run.metrics["data"]["classes"] == {}
    assert [path.name for path in run.folder.iterdir()] == ["dry_run.png"]
    assert "classes" not in dry_run_text(run.metrics)


def test_the_command_prints_text_or_json(digit_folders, quick, tmp_path, monkeypatch, capsys):
    settings = [part for name, value in quick().items() for part in ("--set", f"{name}={json.dumps(value)}")]
    arguments = ["vithub", "finetune", "--data", digit_folders, "--output", tmp_path / "run", *settings, "--dry-run"]
    monkeypatch.setattr(sys, "argv", [str(one) for one in (*arguments, "--json", "--batch-size", "auto")])
    assert run(app) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["accumulation"]) == (14, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json"], "--json prints what --dry-run found"),
        (["--dry-run", "--resume"], "takes no --resume"),
        (["--batch-size", "many"], "takes a number of images or auto, got 'many'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vithub", "finetune", *options])
    assert run(app) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_a_run_may_not_use_is_refused_before_anything_is_measured(followed, train, tmp_path):
    with pytest.raises(ValueError, match="takes no `resume`"):
        train(followed.folder, dry_run=True, resume=True)
    with pytest.raises(OSError, match="holds another run"):
        train(followed.folder, dry_run=True)
    with pytest.raises(ValueError, match="measures the loop of accelerate"):
        train(tmp_path / "run", dry_run=True, front_end="trainer")
