"""Resuming a run: which one, what of its recipe may change, and from which of its checkpoints."""

from pathlib import Path
from typing import Any

from ..data.argument_names import argument, stated
from ..hub.folders import TargetError
from .loop.checkpoint_faults import set_aside_damaged
from .loop.checkpoints import checkpoints, last_checkpoint, step_of
from .recipe.recipe import Recipe, RecipeError, flat
from .recipe.resumable import LENGTH
from .recipe.run_files import METRICS, RECIPE
from .runtime.progress import Reporter
from .tasks.task import TrainingTask


def run_to_resume(name: str | None, prolong: bool, reporter: Reporter) -> Path:
    """The run that is meant where no folder is named: the one in `runs/` that was worked on last.

    Args:
        name: Default name of the run, where it is known what was trained on what; None takes any.
        prolong: Whether a finished run is as good as one that was interrupted; else those are preferred.
        reporter: Told which one it is.

    Raises:
        TargetError: There is none.
    """
    folders = [file.parent for file in Path("runs").glob(f"*/{RECIPE}")]
    if name is not None:
        folders = [folder for folder in folders if _base(folder.name) == name]
    if not folders:
        place = "runs/" if name is None else f"runs/{name}"
        raise TargetError(f"{place} holds no run to resume; name its folder with {argument('output')}")
    if not prolong:
        folders = [folder for folder in folders if not (folder / METRICS).is_file()] or folders
    *others, newest = sorted(folders, key=_last_change)
    more = f" (also there: {', '.join(map(str, others))}; {argument('output')} names one)" if others else ""
    reporter.message(f"the run to resume is {newest}{more}")
    return newest


def _base(name: str) -> str:
    """The name of a run's folder without the number of a later one."""
    start, _, number = name.rpartition("-")
    return start if start and number.isdecimal() else name


def _last_change(folder: Path) -> float:
    newest = last_checkpoint(folder / "checkpoints")
    return max(path.stat().st_mtime for path in (folder / RECIPE, newest) if path is not None)


def prepare_checkpoints(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Sets damaged checkpoints aside, so that the newest whole one is resumed.

    Args:
        folder: Of the run.
        recipe: Says whether the best weights are needed.
        reporter: Told what is wrong with which file.

    Raises:
        TargetError: A finished run has no checkpoints any more.
        CheckpointReadError: None of the checkpoints is whole.
    """
    place = folder / "checkpoints"
    if not checkpoints(place) and (folder / METRICS).is_file() and any(folder.glob("*.safetensors")):
        raise TargetError(
            f"{folder} is finished and its checkpoints were removed, so that it cannot be trained longer; "
            f"begin a new run from it: {stated(model=str(folder))}"
        )
    for line in set_aside_damaged(place, best=recipe.training.publish == "best"):
        reporter.message(line)


def check_length(task: TrainingTask, before: Recipe, folder: Path) -> None:
    """Checks that a change of a run's length can be made.

    Args:
        task: With the recipe as it is now.
        before: The run's recipe as it was.
        folder: Of the run.

    Raises:
        RecipeError: The run is longer already, or what was changed does not change its length.
    """
    old, new = flat(before.model_dump()), flat(task.recipe.model_dump())
    changed = [name for name in LENGTH if old[name] != new[name]]
    last = last_checkpoint(folder / "checkpoints")
    if not changed or last is None:
        return
    told, total = ", ".join(f"{name} {new[name]}" for name in changed), task.total_steps
    if total < step_of(last):
        raise RecipeError(
            f"{told} ends the run after {total} steps, and it has done {step_of(last)} already "
            f"({step_of(last) / task.steps_per_epoch:.3g} epochs); to end it there: {stated(finish=True)}"
        )
    if total == task.steps_of(before.training):
        other = next((name for name in LENGTH if name not in changed), changed[0])
        raise RecipeError(f"{told} has no effect: {other} {new[other]} ends the run after {total} steps as before")


def finish_at_last_checkpoint(task: TrainingTask, folder: Path) -> None:
    """Makes the last checkpoint the end of the training.

    Raises:
        TargetError: There is none.
    """
    last = last_checkpoint(folder / "checkpoints")
    if last is None:
        raise TargetError(f"{folder} has no checkpoint yet, so that there is nothing to finish; resume it without")
    task.end_step = step_of(last)


def ended_early(task: TrainingTask) -> dict[str, Any] | None:
    """What `metrics.json` says of a run that was finished before its planned end."""
    if task.total_steps == task.planned_steps:
        return None
    return {"step": task.total_steps, "of": task.planned_steps}


__all__ = [
    "check_length",
    "ended_early",
    "finish_at_last_checkpoint",
    "prepare_checkpoints",
    "run_to_resume",
]
