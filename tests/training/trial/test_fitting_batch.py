"""`batch_size="auto"`: the recipe's batch, in the largest parts for which there is memory."""

import pytest
import torch
import yaml
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.run_folder import read_run_recipe
from vithub.training.tasks.classification.task import ClassificationTask
from vithub.training.tasks.registry import build_task
from vithub.training.trial import step_memory
from vithub.training.trial.search import Trials
from vithub.training.trial.steps import WRITES_NOTHING, TrialSteps

EPOCH = {"training.epochs": 1}


@pytest.fixture
def limit(monkeypatch):
    """Gives the device memory for so many images at once: `limit(12)`."""
    computed = ClassificationTask.loss

    def set_to(most):
        def loss(self, model, batch):
            if len(batch["pixel_values"]) > most:
                raise torch.OutOfMemoryError(f"no memory for {len(batch['pixel_values'])} images")
            return computed(self, model, batch)

        monkeypatch.setattr(ClassificationTask, "loss", loss)

    return set_to


def test_a_run_in_parts_that_fit_has_the_losses_of_the_whole_batch_and_resumes_in_them(
    limit, train, listener, losses_of, tmp_path
):
    whole = losses_of(7, EPOCH)
    limit(12)
    broken = listener(break_after=3)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", {**EPOCH, "training.checkpoint_steps": 2}, batch_size="auto", reporter=broken)
    recipe = read_run_recipe(tmp_path / "run")
    assert (recipe.training.batch_size, recipe.training.accumulation) == (40, 4)
    assert any("10 of the 40 images of a step fit at once" in told for told in broken.messages)
    limit(1000)  # what fits now does not matter
    run = train(tmp_path / "run", EPOCH, recipe=None, data=None, resume=True, batch_size="auto")
    assert run.metrics["history"][-1]["step"] == 7
    assert read_run_recipe(run.folder).training.accumulation == 4
    assert broken.losses == pytest.approx(whole[:3], abs=1e-6, rel=0)
    assert run.losses == pytest.approx(whole[2:], abs=1e-6, rel=0)


def test_where_everything_fits_the_run_is_the_same_to_the_bit(train, losses_of, tmp_path):
    run = train(tmp_path / "run", EPOCH, batch_size="auto")
    assert run.losses == losses_of(7, EPOCH)
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text())["training"]["accumulation"] == 1


def test_a_device_without_memory_is_tried_from_the_whole_batch_down(limit, digit_folders, quick, tmp_path):
    limit(6)
    recipe = Recipe().with_values({**quick(), **WRITES_NOTHING})
    steps = TrialSteps(build_task(recipe, digit_folders), tmp_path)
    memory = step_memory.StepMemory(torch.device("cpu"))
    trials = Trials(lambda images: steps.needed(images, memory), memory.available)
    assert trials.descend([1, 2, 4, 5, 8, 10, 20, 40]) == 5
    assert [(one.images, one.fits) for one in trials.done] == [
        (40, False), (20, False), (10, False), (5, True), (8, False),
    ]  # fmt: skip


def test_the_host_is_not_asked_for_more_than_a_share_of_what_it_has(train, monkeypatch, tmp_path):
    monkeypatch.setattr(step_memory, "HOST_SHARE", 0.0)
    monkeypatch.setattr(step_memory, "resident_memory", lambda: -1)  # every step takes something
    with pytest.raises(RecipeError, match=r"a step of 1 of the 40 images at once needs .* the limit is 0 MiB, 0 %"):
        train(tmp_path / "run", EPOCH, batch_size="auto")
    assert not (tmp_path / "run").exists()  # so that a corrected run can take it


def test_a_number_of_parts_that_is_stated_too_is_refused(train, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size='auto' finds training.accumulation, which is stated too"):
        train(tmp_path / "run", {"training.accumulation": 2}, batch_size="auto")
