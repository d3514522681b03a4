"""Training from beginning to end: the function behind `vithub finetune`."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from ..data.images import BadImageError
from .accelerate_loop import AccelerateLoop, LoopResult
from .detector_source import is_detector_folder
from .energy import energy_estimate
from .environment import hardware, software_versions
from .hub_trainer import HubTrainer
from .interruption import StopAtOnce
from .loading_processes import named_deaths
from .model_names import DETECTOR_FROM_SCRATCH, is_from_scratch
from .presets import preset
from .processes import process_state
from .progress import QuietReporter, Reporter
from .recipe import Recipe
from .recipe_effects import check_effects
from .resumable import LENGTH
from .resuming import check_length, ended_early, finish_at_last_checkpoint, prepare_checkpoints, run_to_resume
from .run_checkpoints import whole_state
from .run_folder import free_run_folder, measurements, open_run_folder, read_run_recipe, write_recipe, write_run
from .task import TrainingTask
from .task_building import build_task

FRONT_ENDS = ("accelerate", "trainer")


@dataclass
class Run:
    """A finished training.

    Args:
        folder: Loads with `from_pretrained`.
        metrics: The content of its `metrics.json`.
        model: The published weights, in evaluation mode.
        losses: Of each step of this process, resumed runs from where they resumed.
    """

    folder: Path
    metrics: dict[str, Any]
    model: PreTrainedModel
    losses: list[float]


def finetune(
    model: str | None = None,
    data: Any = None,
    out: str | Path | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    preset_name: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    finish: bool = False,
    values: dict[str, Any] | None = None,
    teacher: Any = None,
    front_end: str = "accelerate",
    reporter: Reporter | None = None,
) -> Run:
    """Trains a classifier and leaves a folder that `AutoModelForImageClassification` and `pipeline` load.

    With no argument at all it trains a small DeiT on handwritten digits that ship with scikit-learn.

    Args:
        model: A preset from scratch ("deit-s", "vit-b/32"), a folder or a Hub id. None takes the recipe's.
        data: "digits", a folder, a `.csv` or `.parquet` file, a Hub id, or a `Dataset` in memory.
        out: The run's folder; None makes one below `runs/`, and with `resume` takes the one there that was worked on
            last.
        recipe: A whole recipe or the file of one, such as the `recipe.yaml` of a run.
        preset_name: A named recipe to begin from; None chooses by model and data.
        epochs: Overrides the recipe's.
        seed: Overrides the recipe's.
        resume: Go on with the run in `out`. Its recipe stays but for the fields of `resumable.MAY_CHANGE`, such as
            `epochs` to train longer; what has changed is in `metrics.json`.
        finish: With `resume`: end the training now, evaluate what the last checkpoint has, and write the run's folder.
        values: Further fields by dotted name, such as {"training.lr": 1e-3}.
        teacher: A folder or Hub id of an image classifier to learn from, or a module that answers the student's pixels
            with logits in the order of the student's labels. None takes the recipe's.
        front_end: Whose loop runs: "accelerate", or "trainer" for that of transformers' `Trainer`; the losses are the
            same.
        reporter: Told of the progress; None writes to the log.

    Raises:
        RecipeError: A field of the recipe is wrong.
        DataError: The data set cannot be used.
        TargetError: The folder holds something already or cannot be written, another process trains in it, or there is
            nothing to resume.
        CheckpointReadError: None of the checkpoints to resume from is whole.
        LoadingProcessError: A loading process died.
        Interrupted: SIGTERM or SIGINT came.
    """
    if front_end not in FRONT_ENDS:
        raise ValueError(f"`front_end` must be one of {', '.join(FRONT_ENDS)}, got {front_end!r}")
    state = process_state()
    reporter = (reporter or QuietReporter()) if state.is_main_process else QuietReporter()
    in_memory = None if data is None or isinstance(data, str | Path) else data
    module = None if isinstance(teacher, str | Path) else teacher
    named = {
        "model.source": None if model is None else str(model),
        "data.source": "a Dataset in memory" if in_memory is not None else None if data is None else str(data),
        "distillation.teacher": "a module" if module is not None else None if teacher is None else str(teacher),
        "training.epochs": epochs,
        "seed": seed,
    }
    given = {name: value for name, value in named.items() if value is not None} | (values or {})
    if finish:
        _check_finish(resume, given)
    if resume and out is None:
        any_run = all(part is None for part in (recipe, preset_name, model, data))
        name = None if any_run else folder_name(resolve_recipe(recipe, preset_name, model, data).with_values(given))
        prolong = any(field in given for field in LENGTH)
        out = _agreed(run_to_resume(name, prolong, reporter) if state.is_main_process else Path())
    if resume and recipe is None and preset_name is None and out is not None:
        recipe = read_run_recipe(Path(out).expanduser())
    chosen = resolve_recipe(recipe, preset_name, model, data).with_values(given)
    if not resume:
        check_effects(chosen, given)
    folder = _agreed(Path(out).expanduser() if out is not None else free_folder(chosen))
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(open_run_folder(folder, chosen, resume))
        stack.enter_context(StopAtOnce(folder / "checkpoints"))
        stack.enter_context(named_deaths(f" (--set data.workers=1); --resume goes on with {folder}"))
        state.wait_for_everyone()
        task = _prepared_task(chosen, in_memory, module, folder, resume, finish, reporter)
        _announce(task, folder, reporter)
        loop = HubTrainer(task, folder, reporter) if front_end == "trainer" else AccelerateLoop(task, folder, reporter)
        with _way_past_bad_images(chosen):
            return complete_run(task, loop.run(), folder, reporter)


@contextmanager
def _way_past_bad_images(recipe: Recipe) -> Iterator[None]:
    """Names the option that trains without images that cannot be decoded, where it was not given."""
    try:
        yield
    except BadImageError as error:
        if recipe.data.on_bad_image == "skip":
            raise
        raise BadImageError(
            f"{error}; --on-bad-image skip (data.on_bad_image) trains without such, up to data.max_bad_share of a split"
        ) from error


def _check_finish(resume: bool, given: dict[str, Any]) -> None:
    if not resume:
        raise ValueError("`finish` ends a run that was begun before: give `resume` too")
    if longer := [name for name in LENGTH if name in given]:
        raise ValueError(f"`finish` ends the run where it is, which {', '.join(longer)} would change; give one of them")


def _prepared_task(
    recipe: Recipe, in_memory: Any, teacher: Any, folder: Path, resume: bool, finish: bool, reporter: Reporter
) -> TrainingTask:
    """The task, with the checkpoint to go on from ready where a run is resumed."""
    state = process_state()
    before = read_run_recipe(folder)
    if resume and state.is_main_process:
        prepare_checkpoints(folder, recipe, reporter)
    state.wait_for_everyone()
    try:
        task = build_task(recipe, in_memory, state.num_processes, teacher)
    except Exception:
        if state.is_main_process and not resume:
            free_run_folder(folder)
        raise
    if not resume:
        return task
    if finish:
        finish_at_last_checkpoint(task, folder)
    else:
        check_length(task, before, folder)
    state.wait_for_everyone()
    if state.is_main_process and recipe != before:
        write_recipe(folder, recipe)
    return task


def _announce(task: TrainingTask, folder: Path, reporter: Reporter) -> None:
    sizes = ", ".join(f"{count} {split}" for split, count in task.data.sizes.items())
    parameters = sum(p.numel() for p in task.model.parameters())
    reporter.message(
        f"{type(task.model).__name__} ({parameters / 1e6:.1f} M parameters) on {task.data.name} ({sizes} images, "
        f"{task.num_labels} classes), {task.total_steps} steps of {task.batch_size} images, into {folder}"
    )


def _agreed(folder: Path) -> Path:
    """The main process's folder, in all processes."""
    chosen: Path = broadcast_object_list([folder])[0]
    return chosen


def complete_run(task: TrainingTask, result: LoopResult, folder: Path, reporter: Reporter) -> Run:
    """Evaluates the published weights as they will be served, in fp32, and writes the run's folder."""
    split = "test" if task.data.test is not None else "validation"
    task.finish(folder if result.accelerator.is_main_process else None)
    progress = result.record.progress
    evaluations = {
        name: task.evaluate(task.model, name, result.accelerator, reporter)
        for name in dict.fromkeys(["validation", split])
    }
    counts, looked = evaluations[split].counts, task.looked_closer(split)
    device, processes = result.accelerator.device.type, result.accelerator.num_processes
    bad_images = {"train": progress.bad_images} | {name: found.bad_images for name, found in evaluations.items()}
    metrics = {
        "problem": task.problem,
        **{name: found.figures for name, found in evaluations.items()},
        **measurements(counts, task.names),
        **looked,
        "reported_split": split,
        "published_epoch": result.published_epoch,
        "weights": "ema" if result.record.ema is not None else "trained",
        "teacher": _teacher_description(task),
        "history": progress.history,
        "changes": progress.changes,
        "ended_early": ended_early(task),
        "data": task.about_data,
        "bad_images": {name: names for name, names in bad_images.items() if names},
        "skipped_steps": progress.skipped_steps,
        "image_hw": task.image_hw,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "batch_size": task.batch_size,
        "seconds": round(progress.seconds, 1),
        "precision": result.precision,
        "energy": energy_estimate(progress.seconds, device, processes),
        "device": device,
        "processes": processes,
        "front_end": result.front_end,
        "hardware": hardware(),
        "versions": software_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    state = whole_state(task.model)
    if result.accelerator.is_main_process:
        write_run(folder, task.model, task.image_processor, metrics, counts, state)
    result.accelerator.wait_for_everyone()
    headline, quality = counts.headline.replace("_", " "), evaluations[split].quality
    reporter.message(
        f"{split} {headline} {100 * quality:.2f} % after {progress.seconds:.0f} s; {folder} is ready to load"
    )
    if result.accelerator.is_main_process:
        _leave_checkpoints(task, folder, reporter)
    return Run(folder, metrics, task.model, result.record.losses)


def _leave_checkpoints(task: TrainingTask, folder: Path, reporter: Reporter) -> None:
    """Removes the checkpoints of a finished run where its recipe says so, else says what they are still good for."""
    place = folder / "checkpoints"
    if task.recipe.training.keep_checkpoints == 0:
        shutil.rmtree(place, ignore_errors=True)
    elif place.is_dir():
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        reporter.message(
            f"{place} ({size / 1e6:.1f} MB) serves only to train longer (--resume --epochs N) and may be removed; "
            "--keep-checkpoints 0 leaves none"
        )


def _teacher_description(task: TrainingTask) -> dict[str, Any] | None:
    if task.teacher is None:
        return None
    return {
        "name": task.teacher.name,
        "kind": task.recipe.distillation.kind,
        "through": task.criterion.through,
    }


def resolve_recipe(recipe: Recipe | str | Path | None, preset_name: str | None, model: str | None, data: Any) -> Recipe:
    """The recipe to begin from: the one given, the named one, or the one that suits model and data."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return Recipe.from_yaml(recipe)
    if preset_name is not None:
        return preset(preset_name)
    if model is not None and (model == DETECTOR_FROM_SCRATCH or is_detector_folder(model)):
        return preset("detr")
    if model is not None and not is_from_scratch(model):
        return preset("finetune")
    return preset("digits" if model is None and data in (None, "digits") else "from-scratch-small")


def folder_name(recipe: Recipe) -> str:
    """Name of a run's folder where none is given."""
    name = "-".join(Path(source).name.replace("/", "-") for source in (recipe.data.source, recipe.preset))
    return "digits" if recipe.preset == "digits" else name


def free_folder(recipe: Recipe) -> Path:
    """`runs/NAME` for a recipe, with a number where that exists."""
    name = folder_name(recipe)
    taken = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in range(1, 10_000))
    return next(folder for folder in taken if not folder.exists())


__all__ = ["Run", "complete_run", "finetune", "free_folder", "resolve_recipe"]
