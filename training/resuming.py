"""Selection of the run to resume, of the recipe changes that it allows, and of the checkpoint to continue from."""

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
    """Finds the run to resume if no folder is named: the one in `runs/` that changed last.

    Args:
        name: Default name of the run, if model and data are given; None considers all runs.
        prolong: Whether finished runs count the same as interrupted ones; otherwise interrupted runs are preferred.
        reporter: Receives a message that names the chosen run.

    Raises:
        TargetError: There is no run to resume.
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
    """Returns the name of a run's folder without the number that a later run gets."""
    start, _, number = name.rpartition("-")
    return start if start and number.isdecimal() else name


def _last_change(folder: Path) -> float:
    newest = last_checkpoint(folder / "checkpoints")
    return max(path.stat().st_mtime for path in (folder / RECIPE, newest) if path is not None)


def prepare_checkpoints(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Moves damaged checkpoints aside, so that the newest complete one is resumed.

    Args:
        folder: Folder of the run.
        recipe: Recipe, which says whether the best weights are needed.
        reporter: Receives a message per damaged file with the reason.

    Raises:
        TargetError: The run is finished and its checkpoints were removed.
        CheckpointReadError: None of the checkpoints is complete.
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
    """Checks that the change of a run's length is possible.

    Args:
        task: Task with the new recipe.
        before: Recipe of the run before the change.
        folder: Folder of the run.

    Raises:
        RecipeError: The run has made more steps already, or the change does not alter its length.
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
        TargetError: The run has no checkpoint.
    """
    last = last_checkpoint(folder / "checkpoints")
    if last is None:
        raise TargetError(f"{folder} has no checkpoint yet, so that there is nothing to finish; resume it without")
    task.end_step = step_of(last)


def ended_early(task: TrainingTask) -> dict[str, Any] | None:
    """Returns the entry in `metrics.json` for a run that was finished before its planned end, else None."""
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
