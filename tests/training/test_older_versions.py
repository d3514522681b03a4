"""Folders of version 0.1 are loaded, measured and resumed; those of a version to come are refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification
from vithub.hub.checkpoints import CheckpointError
from vithub.scripts.command_line import app, run
from vithub.training.loop.checkpoints import CheckpointReadError, checkpoints, last_checkpoint
from vithub.training.recipe.recipe import Recipe

import vithub

STORED = Path(__file__).parents[1] / "version_0_1"


@pytest.fixture
def finished(tmp_path):
    return shutil.copytree(STORED / "finished", tmp_path / "finished")


@pytest.fixture
def interrupted(tmp_path):
    return shutil.copytree(STORED / "interrupted", tmp_path / "interrupted")


def change(file, **fields):
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps(content))
    return file


def test_a_run_of_version_0_1_gives_the_figures_that_it_recorded(finished):
    config = json.loads((finished / "config.json").read_text())
    assert "vithub_format" not in config
    recorded = json.loads((finished / "metrics.json").read_text())
    measured = vithub.evaluate(finished)["metrics"]
    assert measured["accuracy"] == recorded["test"]["accuracy"]
    assert measured["loss"] == pytest.approx(recorded["test"]["loss"], rel=1e-5)
    model = vithub.load(finished)
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(
            model(pixels).logits, AutoModelForImageClassification.from_pretrained(finished)(pixels).logits
        )
    report = vithub.publish(finished, "ada/older", dry_run=True)
    assert {"config.json", "model.safetensors", "README.md"} <= {file.path for file in report.sent}


def test_a_run_of_version_0_1_that_was_broken_off_goes_on(interrupted):
    last = last_checkpoint(interrupted / "checkpoints")
    state = json.loads((last / "state.json").read_text())
    assert "format" not in state
    assert not (last / "SHA256SUMS").exists()
    recipe = Recipe.from_yaml(interrupted / "recipe.yaml")
    gone_on = vithub.finetune(output=interrupted, resume=True)
    history = gone_on.metrics["history"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3] == list(range(1, recipe.training.epochs + 1))
    assert history[: len(state["history"])] == state["history"]
    per_epoch = history[0]["step"]
    assert len(gone_on.losses) == 3 * per_epoch - state["step"]
    assert history[2]["train_loss"] < history[1]["train_loss"] < history[0]["train_loss"]
    assert gone_on.metrics["test"]["accuracy"] > 0.15
    config = json.loads((interrupted / "config.json").read_text())
    assert config["vithub_format"] == 1  # today's version wrote it


DOORS = {
    "load": vithub.load,
    "transformers": AutoModelForImageClassification.from_pretrained,
    "evaluate": vithub.evaluate,
    "publish": lambda folder: vithub.publish(folder, "ada/newer", dry_run=True),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_configuration_of_a_version_to_come_is_refused(door, finished):
    change(finished / "config.json", vithub_format=2)
    with pytest.raises(
        ValueError, match=r"config\.json: made by a newer vithub: format 2, this version reads up to 1; update vithub"
    ) as caught:
        DOORS[door](finished)
    assert door == "transformers" or str(finished / "config.json") in str(caught.value)


@pytest.mark.parametrize("stated", [0, -1, 1.5, "1", True, None, [1]])
def test_a_format_that_is_none_is_refused(stated, finished):
    change(finished / "config.json", vithub_format=stated)
    with pytest.raises(
        CheckpointError, match=r"config\.json: `vithub_format` must be a whole number of at least 1, got"
    ):
        vithub.load(finished)


def test_the_command_says_so_in_one_line(finished, capsys):
    change(finished / "config.json", vithub_format=7)
    assert run(lambda: app(["evaluate", str(finished)])) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert f"{finished / 'config.json'}: made by a newer vithub: format 7, this version reads up to 1" in text


def test_the_first_format_may_be_stated(finished):
    change(finished / "config.json", vithub_format=1)
    assert vithub.load(finished).config.num_labels == 10


def test_checkpoints_of_a_version_to_come_are_refused_and_stay(interrupted):
    folder = interrupted / "checkpoints"
    last = last_checkpoint(folder)
    change(last / "state.json", format=3)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    with pytest.raises(
        CheckpointReadError, match=r"format 3, this version reads up to 2; update vithub to go on"
    ) as caught:
        vithub.finetune(output=interrupted, resume=True)
    assert str(last / "state.json") in str(caught.value)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before  # none is taken for damaged
    assert last in checkpoints(folder)
