"""Dry run: what a run will do, shown before it begins, with time and memory measured on a few of its steps."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ...data.argument_names import argument
from ...data.boxes.pictures import contact_sheet
from ...data.checking.image_sizes import image_sizes
from ...data.splits import SplitTables
from ...hub.folders import TargetError
from ..loop.training_state import peak_memory_mb
from ..recipe.recipe import Recipe
from ..recipe.run_files import DRY_RUN_PICTURE
from ..runtime.batch_loading import closing_loaders
from ..runtime.environment import hardware
from ..runtime.progress import Reporter
from ..tasks.task import TrainingTask
from .fitting_batch import tried_parts, with_fitting_parts
from .step_memory import StepMemory
from .steps import WRITES_NOTHING, StepTimes, TrialSteps, as_in_a_run

MOST_STEPS, SECONDS = 6, 30.0  # steps that are measured, and seconds after which three are enough
EVALUATED = 2  # batches of a split, after the first
SHOWN = 24  # images in the picture
NOT_IN_THE_ESTIMATE = (
    "starting the program, training.head_first_epochs, checkpoints, the pictures of errors and the model card"
)


def check_dry_run(resume: bool, front_end: str, processes: int) -> None:
    """Rejects options that a dry run has no use for.

    Raises:
        ValueError: There is such an option.
    """
    if resume:
        raise ValueError(f"{argument('dry_run')} shows a run before it begins; it takes no {argument('resume')}")
    if front_end != "accelerate":
        raise ValueError(f"{argument('dry_run')} measures the loop of accelerate; leave out {argument('front_end')}")
    if processes > 1:
        raise ValueError(f"{argument('dry_run')} measures one process, and there are {processes}: begin it without")


def dry_run(
    recipe: Recipe, build: Callable[[Recipe], TrainingTask], folder: Path, reporter: Reporter, *, fit: bool = False
) -> tuple[dict[str, Any], PreTrainedModel, list[float]]:
    """Makes the first steps of a run and throws them away; leaves a picture of their images in the run's folder.

    Args:
        recipe: Recipe of the run.
        build: Function that makes the task of a recipe.
        folder: Folder of the run, which holds nothing else afterwards.
        reporter: Receives messages.
        fit: Whether to divide the batch into parts that fit first, as `with_fitting_parts` does.

    Returns:
        The report as plain data, the model, and the losses of the measured steps.
    """
    if fit:
        with tempfile.TemporaryDirectory(prefix="vithub-dry-run-") as place:
            recipe = with_fitting_parts(recipe, build, Path(place), reporter)
    began = time.perf_counter()
    task = build(recipe.with_values(WRITES_NOTHING))
    building = time.perf_counter() - began
    report: dict[str, Any] = {
        "folder": str(folder),
        "task": recipe.task,
        "preset": recipe.preset,
        "model": type(task.model).__name__,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "input": task.input_facts(),
        "data": _data(task),
        "steps": task.total_steps,
        "steps_per_epoch": task.steps_per_epoch,
        "epochs": task.epochs,
        "batch_size": task.batch_size,
        "accumulation": recipe.training.accumulation,
    }
    reporter.message(f"dry run: measuring up to {MOST_STEPS} steps of {task.batch_size} images")
    with as_in_a_run(recipe), closing_loaders(), tempfile.TemporaryDirectory(prefix="vithub-dry-run-") as place:
        steps = TrialSteps(task, Path(place) / "run")
        times = steps.measure(MOST_STEPS, SECONDS, SHOWN)
        report["picture"] = _picture(steps, folder)
        report["device"] = steps.device.type
        report["hardware"] = hardware(steps.device.type)
        report["precision"] = steps.loop.precision
        report["peak_memory_mb"] = peak_memory_mb(steps.device)
        report["seconds_per_step"] = times.median
        report["measured_steps"] = len(times.seconds)
        report["first_step_seconds"] = times.first
        report["images_per_second"] = task.batch_size / times.median
        report["fits"] = _fits(steps) if steps.device.type == "cuda" else None
        report["estimate"] = _estimate(steps, times, building)
    return report, task.model, times.losses


def _data(task: TrainingTask) -> dict[str, Any]:
    splits = task.data.splits if isinstance(task.data, SplitTables) else {}
    return {
        "name": task.data.name,
        "sizes": task.data.sizes,
        "notes": list(task.data.notes),
        "counted": task.counted,
        "classes": task.class_counts(),
        "image_sizes": {name: sizes.to_dict() for name, sizes in image_sizes(splits).items()},
    }


def _picture(steps: TrialSteps, folder: Path) -> str | None:
    """Writes the picture of the first batches; returns its path, None for a task that shows none."""
    found = [
        one
        for batch in steps.batches
        for one in steps.task.pictures({name: _on_host(value) for name, value in batch.items()})
    ]
    steps.batches.clear()
    if not found:
        return None
    file = folder / DRY_RUN_PICTURE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet([image for image, _ in found[:SHOWN]], [title for _, title in found[:SHOWN]], tile=240)
        sheet.save(file)
    except OSError as error:
        raise TargetError(f"cannot write {file}: {error.strerror or error}") from error
    return str(file)


def _on_host(value: Any) -> Any:
    return value.cpu() if hasattr(value, "cpu") else value


def _estimate(steps: TrialSteps, times: StepTimes, building: float) -> dict[str, Any]:
    """Extrapolates the measured times to the whole run."""
    task = steps.task
    each = steps.evaluate("validation", EVALUATED)
    names = dict.fromkeys(("validation", task.data.reported))
    last = [steps.evaluate(name, EVALUATED, published=True) for name in names]
    parts = {
        "reading": building,
        "preparing": steps.preparation,
        "steps": times.first - times.median + task.total_steps * times.median,
        "evaluations": task.epochs * each.whole,
        "last_evaluation": sum(one.whole for one in last),
    }
    return {
        "seconds": sum(parts.values()),
        "parts": parts,
        "rests_on": {"steps": len(times.seconds), "evaluations": [one.to_dict() for one in (each, *last)]},
        "without": NOT_IN_THE_ESTIMATE,
        "at_most": task.recipe.training.early_stop is not None,
    }


def _fits(steps: TrialSteps) -> dict[str, Any]:
    """Finds how many of a step's images fit at once; see `tried_parts`."""
    memory = StepMemory(steps.device)
    trials = tried_parts(steps, memory)
    return {
        "images": trials.largest,
        "of": steps.task.batch_size,
        "limit": memory.limit_text(),
        "tried": [one.to_dict() for one in trials.done],
    }


__all__ = ["EVALUATED", "MOST_STEPS", "SHOWN", "check_dry_run", "dry_run"]
