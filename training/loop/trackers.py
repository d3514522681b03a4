"""Accelerate's experiment trackers, which receive metrics during a run, for both front ends."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from ..recipe.recipe import Recipe, RecipeError, flat

TENSORBOARD = "tensorboard"


class Trackers:
    """Trackers of a run; active in the main process only.

    Args:
        wanted: Names of trackers; None selects TensorBoard if installed.
        folder: Folder of TensorBoard's logs.
        recipe: Recipe of the run, stored with each tracker.

    Raises:
        RecipeError: A tracker is not installed.
    """

    def __init__(self, wanted: Sequence[str] | None, folder: Path, recipe: Recipe) -> None:
        names = tracker_names(wanted)
        self.open: list[Any] = []
        if not PartialState().is_main_process:
            return
        for name in names:
            tracker = LOGGER_TYPE_TO_CLASS[name](*(("", folder) if name == TENSORBOARD else ("vithub",)))
            tracker.start()
            self.open.append(tracker)
            if name == TENSORBOARD:
                tracker.log({"recipe": f"```yaml\n{recipe.to_yaml()}```"}, step=0)
            else:
                tracker.store_init_configuration(
                    {key: value if value is None or isinstance(value, int | float | str) else str(value)
                     for key, value in flat(recipe.model_dump(mode="json")).items()}
                )  # fmt: skip

    def log(self, figures: dict[str, float], step: int) -> None:
        """Logs the metrics of a step."""
        for tracker in self.open:
            tracker.log(figures, step=step)

    def finish(self) -> None:
        """Flushes and closes the trackers."""
        for tracker in self.open:
            tracker.finish()
        self.open = []


def tracker_names(wanted: Sequence[str] | None) -> list[str]:
    """Returns the names of a recipe's trackers; None selects TensorBoard if installed."""
    if wanted is None:
        return [TENSORBOARD] if find_spec(TENSORBOARD) else []
    if missing := [name for name in wanted if find_spec(name) is None]:
        raise RecipeError(f"training.trackers: {', '.join(missing)} not installed; pip install {' '.join(missing)}")
    return list(wanted)


__all__ = ["Trackers", "tracker_names"]
