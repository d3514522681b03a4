"""Where figures go while a run lasts: trackers of Accelerate."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator

from .recipe import Recipe, RecipeError, flat

TENSORBOARD = "tensorboard"


def tracker_names(wanted: Sequence[str] | None) -> list[str]:
    """The trackers of a recipe; None is TensorBoard, in a local folder, where it is installed.

    Raises:
        RecipeError: A tracker is not installed.
    """
    if wanted is None:
        return [TENSORBOARD] if find_spec(TENSORBOARD) else []
    if missing := [name for name in wanted if find_spec(name) is None]:
        raise RecipeError(f"training.trackers: {', '.join(missing)} not installed; pip install {' '.join(missing)}")
    return list(wanted)


def start_trackers(accelerator: Accelerator, names: list[str], recipe: Recipe) -> None:
    """Opens the trackers and tells them the recipe, as text and numbers."""
    if not names:
        return
    plain: dict[str, Any] = {
        name: value if isinstance(value, int | float | str | bool) else str(value)
        for name, value in flat(recipe.model_dump(mode="json")).items()
    }
    accelerator.init_trackers("vithub", config=plain)


def finish_trackers(accelerator: Accelerator) -> None:
    """Writes what the trackers still hold; `end_training` would part the processes too."""
    for tracker in accelerator.trackers:
        tracker.finish()


__all__ = ["finish_trackers", "start_trackers", "tracker_names"]
