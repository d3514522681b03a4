"""Resuming with changes: longer, shorter, ended now, or with other decisions about faults."""

import json
import re
import shutil
from pathlib import Path

import pytest
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app
from vithub.scripts.command_line import run as run_command
from vithub.training.finetuning import finetune
from vithub.training.loop.checkpoints import checkpoints, last_checkpoint, read_state
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.recipe.resumable import MAY_CHANGE, RECORDED, WITHOUT_EFFECT

# Two steps an epoch; a rate that does not depend on the length, so that a prolonged run is as one of that length.
VALUES = {"training.epochs": 2, "training.batch_size": 140, "training.schedule": "constant"}
CLOCKS = ("images_per_second", "peak_memory_mb", "seconds", "waited_for_images")


@pytest.fixture(scope="module")
def two_epochs(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "two", VALUES).folder


@pytest.fixture(scope="module")
def four_epochs(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "four", VALUES | {"training.epochs": 4})


@pytest.fixture
def copied_run(two_epochs, tmp_path):
    return shutil.copytree(two_epochs, tmp_path / "run")


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def plain(history):
    return [{name: entry[name] for name in entry if name not in CLOCKS} for entry in history]


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_finished_run_trained_longer_is_as_one_of_that_length(front_end, copied_run, four_epochs, listener):
    told = listener()
    run = finetune(output=copied_run, resume=True, epochs=4, front_end=front_end, reporter=told)
    assert weights(copied_run) == weights(four_epochs.folder)
    assert plain(run.metrics["history"]) == plain(four_epochs.metrics["history"])
    assert run.metrics["published_epoch"] == four_epochs.metrics["published_epoch"]
    assert run.metrics["changes"] == [{"step": 4, "field": "training.epochs", "from": 2, "to": 4}]
    assert Recipe.from_yaml(copied_run / "recipe.yaml").training.epochs == 4
    assert "training.epochs is 4 from step 4 on, it was 2" in told.messages
    assert any("constant schedule of 8 steps" in text for text in told.messages)
    again = finetune(output=copied_run, resume=True)  # nothing is left to train, and the record stays
    assert again.metrics["changes"] == run.metrics["changes"]


def test_a_run_cut_within_an_epoch_and_prolonged_is_as_the_unbroken_one(train, four_epochs, tmp_path):
    train(tmp_path / "run", VALUES | {"training.epochs": 4, "training.max_steps": 3})
    run = finetune(output=tmp_path / "run", resume=True, values={"training.max_steps": None})
    trained = [last_checkpoint(folder / "checkpoints") for folder in (run.folder, four_epochs.folder)]
    for name in ("model.safetensors", "optimizer.safetensors"):  # the best may be the weights after step 3 now
        assert (trained[0] / name).read_bytes() == (trained[1] / name).read_bytes()
    extra = [entry for entry in run.metrics["history"] if entry["step"] == 3]
    rest = [entry for entry in run.metrics["history"] if entry["step"] != 3]
    assert len(extra) == 1
    assert plain(rest) == plain(four_epochs.metrics["history"])


def test_a_change_of_length_that_changes_nothing_or_comes_too_late_is_refused(copied_run):
    before = (copied_run / "recipe.yaml").read_bytes()
    with pytest.raises(RecipeError, match=r"training\.epochs 1 ends the run after 2 steps, and it has done 4 already"):
        finetune(output=copied_run, resume=True, epochs=1)
    with pytest.raises(RecipeError, match=r"training\.max_steps 400 has no effect: training\.epochs 2 ends the run"):
        finetune(output=copied_run, resume=True, values={"training.max_steps": 400})
    assert (copied_run / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_loss_that_is_not_finite_is_gone_past_with_another_decision(front_end, train, tmp_path, monkeypatch):
    from vithub.training.loop.step import NonFiniteLossError
    from vithub.training.tasks.classification.losses import TrainingLoss
    from vithub.training.tasks.classification.task import ClassificationTask

    whole, loss, bad = ClassificationTask.loss, TrainingLoss.base, []

    def watched(self, model, batch):
        bad.append(self.step_of(batch) == 2)
        return whole(self, model, batch)

    monkeypatch.setattr(ClassificationTask, "loss", watched)
    monkeypatch.setattr(
        TrainingLoss, "base", lambda self, *given: loss(self, *given) * (float("nan") if bad[-1] else 1.0)
    )
    with pytest.raises(NonFiniteLossError, match="step 2"):
        train(tmp_path / "run", VALUES, front_end=front_end)
    values = {"training.on_nonfinite": "skip"}
    run = finetune(output=tmp_path / "run", resume=True, values=values, front_end=front_end)
    assert run.metrics["skipped_steps"] == [2]
    assert run.metrics["changes"] == [{"step": 2, "field": "training.on_nonfinite", "from": "stop", "to": "skip"}]
    straight = train(tmp_path / "straight", VALUES | values, front_end=front_end)
    assert weights(run.folder) == weights(straight.folder)


def interrupted(train, listener, folder, steps, **values):
    with pytest.raises(KeyboardInterrupt):
        train(folder, VALUES | {"training.epochs": 4} | values, reporter=listener(steps))


@pytest.mark.parametrize(("publish", "front_end"), [("best", "accelerate"), ("last", "trainer")])
def test_finish_publishes_what_the_last_checkpoint_has_and_the_run_can_still_go_on(
    publish, front_end, train, listener, tmp_path, four_epochs
):
    values = {"training.publish": publish, "training.checkpoint_steps": 1}
    interrupted(train, listener, tmp_path / "run", 4, **values)  # in the step after the third, within epoch 2
    folder = tmp_path / "run"
    before = {file: file.read_bytes() for file in (folder / "checkpoints").rglob("*/*") if file.is_file()}
    assert read_state(last_checkpoint(folder / "checkpoints"))["step"] == 3
    run = finetune(output=folder, resume=True, finish=True, front_end=front_end)
    assert run.metrics["ended_early"] == {"step": 3, "of": 8}
    assert [entry["step"] for entry in run.metrics["history"]] == [2, 3]
    cut = train(tmp_path / "cut", VALUES | values | {"training.epochs": 4, "training.max_steps": 3})
    assert weights(folder) == weights(cut.folder)
    assert plain(run.metrics["history"]) == plain(cut.metrics["history"])
    assert {file: file.read_bytes() for file in before} == before
    going_on = finetune(output=folder, resume=True, front_end=front_end)
    assert going_on.metrics["ended_early"] is None
    assert plain(going_on.metrics["history"]) == plain(four_epochs.metrics["history"])


def test_finish_needs_a_run_that_has_a_checkpoint_and_no_other_length(train, listener, tmp_path):
    with pytest.raises(ValueError, match="give `resume` too"):
        finetune(output=tmp_path / "run", finish=True)
    interrupted(train, listener, tmp_path / "run", 1)
    with pytest.raises(TargetError, match="no checkpoint yet"):
        finetune(output=tmp_path / "run", resume=True, finish=True)
    with pytest.raises(ValueError, match=r"training\.epochs would change"):
        finetune(output=tmp_path / "run", resume=True, finish=True, epochs=3)


def test_resume_alone_goes_on_with_the_run_that_was_interrupted(
    train, listener, two_epochs, four_epochs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match="runs/ holds no run to resume"):
        finetune(resume=True)
    interrupted(train, listener, Path("runs/first"), 3)
    shutil.copytree(two_epochs, "runs/finished")
    told = listener()
    run = finetune(resume=True, reporter=told)
    assert run.folder == Path("runs/first")
    assert told.messages[0] == "the run to resume is runs/first"
    assert weights(run.folder) == weights(four_epochs.folder)
    assert run_command(lambda: app(["finetune", "--resume", "--epochs", "5"])) == 0
    assert json.loads(Path("runs/first/metrics.json").read_text())["history"][-1]["epoch"] == 5


def test_checkpoints_of_a_finished_run_can_be_left_out_and_it_says_what_that_means(copied_run, listener):
    told = listener()
    finetune(output=copied_run, resume=True, reporter=told)
    assert re.search(r"checkpoints \([\d.]+ MB\) serves only to train longer.*keep_checkpoints=0", told.messages[-1])
    arguments = ["finetune", "--resume", "--output", str(copied_run), "--keep-checkpoints", "0"]
    assert run_command(lambda: app(arguments)) == 0
    assert not (copied_run / "checkpoints").exists()
    before = weights(copied_run)
    with pytest.raises(TargetError, match="its checkpoints were removed"):
        finetune(output=copied_run, resume=True)
    assert weights(copied_run) == before


def test_one_checkpoint_at_least_stays_while_a_run_lasts(train, listener, tmp_path):
    interrupted(train, listener, tmp_path / "run", 5, **{"training.keep_checkpoints": 0})
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000004"]


def test_the_document_lists_the_fields_that_may_change():
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    part = text.partition("### What may change on resuming")[2].partition("\n##")[0]
    assert set(re.findall(r"^\| `([a-z_.]+)`", part, re.MULTILINE)) == MAY_CHANGE
    assert not set(RECORDED) & set(WITHOUT_EFFECT)
