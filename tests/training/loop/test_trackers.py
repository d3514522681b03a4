import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from vithub.training.recipe.recipe import RecipeError


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_tensorboard_holds_the_loss_of_every_step(train, tmp_path, front_end):
    run = train(tmp_path / "run", {"training.trackers": None}, front_end=front_end)
    events = EventAccumulator(str(tmp_path / "run" / "logs"))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(14))
    assert [event.value for event in losses] == pytest.approx(run.losses, rel=1e-6)
    (_, last) = events.Scalars("epoch/validation_accuracy")
    assert last.step == 14
    assert last.value == pytest.approx(run.metrics["history"][-1]["validation_accuracy"])


def test_a_tracker_that_is_not_installed_is_named(train, tmp_path):
    with pytest.raises(RecipeError, match=r"training.trackers: wandb not installed; pip install wandb"):
        train(tmp_path / "run", {"training.trackers": ["wandb"]})
