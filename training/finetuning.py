"""Complete training run: the function behind `vithub finetune`."""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from ..data.argument_names import argument, renamed, stated, stated_field
from ..data.boxes.loading import MissingImagesError
from ..data.splits import SplitTables
from ..data.table_identity import content_fingerprint
from .loop.accelerate_loop import AccelerateLoop, LoopResult
from .loop.checkpoints import last_checkpoint, whole_state
from .loop.interruption import StopAtOnce
from .loop.trainer import HubTrainer, check_one_device
from .recipe.class_weights import class_weights_from
from .recipe.effects import check_effects, check_resumed_effects
from .recipe.named_fields import named_values
from .recipe.recipe import Recipe
from .recipe.resumable import LENGTH
from .resuming import check_length, ended_early, finish_at_last_checkpoint, prepare_checkpoints, run_to_resume
from .run_choice import folder_name, free_folder, resolve_recipe
from .run_folder import check_unused, free_run_folder, open_run_folder, read_run_recipe, write_recipe, write_run
from .runtime.bad_image_errors import way_past_bad_images
from .runtime.batch_loading import closing_loaders
from .runtime.cuda_settings import cuda_facts, deterministic_algorithms, fast_arithmetic, without_effect
from .runtime.energy import energy_estimate
from .runtime.environment import hardware, software_versions
from .runtime.loading_processes import named_deaths
from .runtime.processes import process_state
from .runtime.progress import QuietReporter, Reporter
from .tasks.registry import build_task
from .tasks.task import TrainingTask
from .trial.dry_run import check_dry_run
from .trial.dry_run import dry_run as rehearse
from .trial.fitting_batch import check_alone, with_fitting_parts

_TRAINS_WITHOUT = "(data.on_bad_image) trains without such, up to data.max_bad_share of a split"
FRONT_ENDS = ("accelerate", "trainer")


@dataclass
class Run:
    """Result of a finished training.

    Args:
        folder: Folder of the run, which `from_pretrained` loads.
        metrics: Content of the run's `metrics.json`.
        model: Model with the published weights, in evaluation mode.
        losses: Loss of each step made by this process; a resumed run begins at the step from which it resumed.
    """

    folder: Path
    metrics: dict[str, Any]
    model: PreTrainedModel
    losses: list[float]


@renamed(out="output", preset_name="preset")
def finetune(
    model: str | None = None,
    data: Any = None,
    output: str | Path | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    preset: str | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    streaming: bool = False,
    batch_size: int | Literal["auto"] | None = None,
    lr: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    label_column: str | None = None,
    seed: int | None = None,
    on_bad_image: str | None = None,
    on_nonfinite: str | None = None,
    teacher: Any = None,
    lora: bool = False,
    front_end: str = "accelerate",
    resume: bool = False,
    finish: bool = False,
    keep_checkpoints: int | None = None,
    class_weights: str | Path | Mapping[str, float] | None = None,
    sampler: str | None = None,
    values: dict[str, Any] | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Trains a model and writes a folder that `pipeline` and transformers' auto classes load.

    Without arguments it trains a small DeiT on the handwritten digits that ship with scikit-learn.

    Args:
        model: Preset to train from scratch ("deit-s", "vit-b/32"), a folder or a Hub id; None takes the recipe's model.
        data: "digits", a folder, a `.csv` or `.parquet` file, a Hub id, or a `Dataset` in memory.
        output: Folder of the run; None makes one below `runs/`, or with `resume` takes the run there that changed last.
        recipe: Whole recipe, or a recipe file: a run's `recipe.yaml`, or a few fields with the preset that they change
            (see `read_recipe`).
        preset: Name of the recipe to begin from; None chooses by model and data.
        epochs: Passes over the training images; None takes the recipe's value, as for the arguments below.
        max_steps: Number of steps after which the training ends.
        streaming: Whether to read the data as a stream instead of loading all of it.
        batch_size: Images per step, over all processes. "auto" keeps the recipe's and divides it by
            `training.accumulation` into the largest parts that fit into memory, found by measured trials.
        lr: Peak learning rate.
        image_size: Image size in pixels: side of a square, or (height, width).
        label_column: Name of the column of labels, or of objects for a detector.
        seed: Seed of all random choices except the drawing of splits.
        on_bad_image: "error" or "skip" for images that cannot be decoded.
        on_nonfinite: "stop" or "skip" for steps whose loss is not finite.
        teacher: Folder or Hub id of an image classifier to learn from, or a module that maps the student's pixels to
            logits in the order of the student's labels.
        lora: Whether to train low-rank adapters of rank 8 instead of all weights.
        front_end: Training loop: "accelerate", or "trainer" for transformers' `Trainer`; both give the same losses.
        resume: Whether to continue the run in `output`. Its recipe stays, except for the fields in
            `resumable.MAY_CHANGE`, such as `epochs` to train longer; `metrics.json` records the changes.
        finish: With `resume`, whether to end the training now, evaluate the last checkpoint and write the run's folder.
        keep_checkpoints: Number of last checkpoints to keep; 0 leaves none after the run.
        class_weights: Weights of the classes in the loss: "balanced" (inverse to the number of training images of a
            class), "sqrt" (inverse to its root), weights by label, or a file of them (see `read_class_weights`).
        sampler: "shuffled" (each image once an epoch) or "balanced" (each class equally often).
        values: Further recipe fields by dotted name, such as {"training.weight_decay": 0.1}; they override the
            arguments above.
        dry_run: Whether to make a few steps only and to throw them away: the result's `metrics` tell what was found in
            the data, the number of steps, and the time and memory that were measured; `output` gets a picture of
            augmented batches and nothing else.
        reporter: Receives the progress; None writes to the log.

    Raises:
        RecipeError: A field of the recipe is wrong.
        DataError: The data set cannot be used.
        TargetError: The folder holds other files or cannot be written, another process trains in it, or there is
            nothing to resume.
        CheckpointReadError: None of the checkpoints to resume from is complete.
        LoadingProcessError: A loading process died.
        Interrupted: The process received SIGTERM or SIGINT.
    """
    if front_end not in FRONT_ENDS:
        raise ValueError(f"{argument('front_end')} must be one of {', '.join(FRONT_ENDS)}, got {front_end!r}")
    state = process_state()
    if front_end == "trainer":
        check_one_device(state.num_processes)
    reporter = (reporter or QuietReporter()) if state.is_main_process else QuietReporter()
    in_memory = None if data is None or isinstance(data, str | Path) else data
    module = None if isinstance(teacher, str | Path) else teacher
    named = {
        "model.source": None if model is None else str(model),
        "data.source": "a Dataset in memory" if in_memory is not None else None if data is None else str(data),
        "distillation.teacher": "a module" if module is not None else None if teacher is None else str(teacher),
    }
    given = {name: value for name, value in named.items() if value is not None}
    given |= named_values(
        epochs=epochs, max_steps=max_steps, streaming=streaming, batch_size=batch_size, lr=lr, image_size=image_size,
        label_column=label_column, seed=seed, on_bad_image=on_bad_image, on_nonfinite=on_nonfinite, lora=lora,
        keep_checkpoints=keep_checkpoints, class_weights=class_weights_from(class_weights), sampler=sampler,
    )  # fmt: skip
    given |= values or {}
    if finish:
        _check_finish(resume, given)
    if batch_size == "auto":
        check_alone(state.num_processes, given)
    if dry_run:
        check_dry_run(resume, front_end, state.num_processes)
    if resume and output is None:
        any_run = all(part is None for part in (recipe, preset, model, data))
        name = None if any_run else folder_name(resolve_recipe(recipe, preset, model, data).with_values(given))
        prolong = any(field in given for field in LENGTH)
        output = _agreed(run_to_resume(name, prolong, reporter) if state.is_main_process else Path())
    chosen = _chosen_recipe(recipe, preset, model, data, given, output if resume else None)
    folder = _agreed(Path(output).expanduser() if output is not None else free_folder(chosen))

    def build(begun: Recipe) -> TrainingTask:
        with way_past_bad_images(begun.data.on_bad_image, _TRAINS_WITHOUT, kinds=(MissingImagesError,)):
            return build_task(begun, in_memory, state.num_processes, module)

    if dry_run:
        check_unused(folder)
        deaths = named_deaths(lambda: f" ({stated_field('data.workers', 1)})")
        with deaths, way_past_bad_images(chosen.data.on_bad_image, _TRAINS_WITHOUT):
            return Run(folder, *rehearse(chosen, build, folder, reporter, fit=batch_size == "auto"))
    with ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(open_run_folder(folder, chosen, resume))
        stack.enter_context(closing_loaders())
        stack.enter_context(StopAtOnce(folder / "checkpoints"))
        stack.enter_context(named_deaths(lambda: f" ({stated_field('data.workers', 1)}); {_go_on(folder)}"))
        state.wait_for_everyone()
        task = _prepared_task(chosen, build, folder, resume, finish, reporter, fit=batch_size == "auto")
        _announce(task, folder, reporter)
        stack.enter_context(deterministic_algorithms(chosen.training, state.device))
        front = HubTrainer if front_end == "trainer" else AccelerateLoop
        with fast_arithmetic(chosen.training, state.device):
            loop = front(task, folder, reporter)
            for note in _without_effect(task, state.device):
                reporter.message(note)
            with way_past_bad_images(chosen.data.on_bad_image, _TRAINS_WITHOUT):
                result = loop.run()
        with way_past_bad_images(chosen.data.on_bad_image, _TRAINS_WITHOUT):
            return complete_run(task, result, folder, reporter)


def _chosen_recipe(
    recipe: Recipe | str | Path | None,
    preset: str | None,
    model: str | None,
    data: Any,
    given: dict[str, Any],
    resumed: str | Path | None,
) -> Recipe:
    """Returns the recipe of a run, or of the one in the folder `resumed`, with the stated fields checked."""
    if resumed is not None and recipe is None and preset is None:
        recipe = read_run_recipe(Path(resumed).expanduser())
    chosen = resolve_recipe(recipe, preset, model, data).with_values(given)
    if resumed is not None:
        check_resumed_effects(chosen, given)
    else:
        check_effects(chosen, given)
    return chosen


def _without_effect(task: TrainingTask, device: torch.device) -> list[str]:
    """Names the options of speed and determinism that are set and do nothing for this device and model."""
    settings = task.recipe.training
    found = without_effect(settings, device)
    if settings.channels_last is True and not task.channels_last:
        found.append("training.channels_last does nothing: the model has no convolutions in layers of their own")
    return found


def _go_on(folder: Path) -> str:
    return f"{stated(resume=True)} goes on with {folder}"


def _check_finish(resume: bool, given: dict[str, Any]) -> None:
    if not resume:
        raise ValueError(f"{argument('finish')} ends a run that was begun before: give {argument('resume')} too")
    if longer := [name for name in LENGTH if name in given]:
        raise ValueError(
            f"{argument('finish')} ends the run where it is, which {', '.join(longer)} would change; give one of them"
        )


def _prepared_task(
    recipe: Recipe,
    build: Callable[[Recipe], TrainingTask],
    folder: Path,
    resume: bool,
    finish: bool,
    reporter: Reporter,
    *,
    fit: bool,
) -> TrainingTask:
    """Builds the task and, for a resumed run, makes its checkpoint ready to load."""
    state = process_state()
    before = read_run_recipe(folder)
    if resume and state.is_main_process:
        prepare_checkpoints(folder, recipe, reporter)
    state.wait_for_everyone()
    try:
        if fit and last_checkpoint(folder / "checkpoints") is None:
            recipe = with_fitting_parts(recipe, build, folder, reporter)
        task = build(recipe)
    except Exception:
        if state.is_main_process and not resume:
            free_run_folder(folder)
        raise
    if resume and finish:
        finish_at_last_checkpoint(task, folder)
    elif resume:
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
        f"{len(task.names)} classes), {task.total_steps} steps of {task.batch_size} images, into {folder}"
    )
    for note in task.model_facts().get("model_notes", ()):
        reporter.message(note)


def _agreed(folder: Path) -> Path:
    """Returns the main process's folder in all processes."""
    chosen: Path = broadcast_object_list([folder])[0]
    return chosen


def complete_run(task: TrainingTask, result: LoopResult, folder: Path, reporter: Reporter) -> Run:
    """Evaluates the published weights in fp32, as they will be served, and writes the run's folder."""
    split = task.data.reported
    task.finish(folder if result.accelerator.is_main_process else None)
    progress = result.record.progress
    evaluations = {
        name: task.evaluate(task.model, name, result.accelerator, reporter)
        for name in dict.fromkeys(["validation", split])
    }
    reported, samples = evaluations[split].metrics, task.sample_facts(split)
    device, processes = result.accelerator.device.type, result.accelerator.num_processes
    bad_images = {"train": progress.bad_images} | {name: found.bad_images for name, found in evaluations.items()}
    metrics = {
        "problem": task.problem,
        "headline": reported.headline,
        **{name: found.values for name, found in evaluations.items()},
        **reported.measurements(task.names),
        **samples,
        **task.calibration_facts(evaluations),
        "reported_split": split,
        "published_epoch": result.published_epoch,
        "weights": "ema" if result.record.ema is not None else "trained",
        "teacher": task.teacher_facts(),
        "history": progress.history,
        "changes": progress.changes,
        "ended_early": ended_early(task),
        "data": task.data_facts(),
        "evaluated_on": _evaluated_on(task, split) if result.accelerator.is_main_process else None,
        "bad_images": {name: names for name, names in bad_images.items() if names},
        "skipped_steps": progress.skipped_steps,
        **task.input_facts(),
        **task.model_facts(),
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "batch_size": task.batch_size,
        "seconds": round(progress.seconds, 1),
        "precision": result.precision,
        "computation": {
            "compiled": task.compiled,
            "channels_last": task.channels_last,
            **cuda_facts(task.recipe.training, result.accelerator.device),
            "without_effect": _without_effect(task, result.accelerator.device),
        },
        "energy": energy_estimate(progress.seconds, device, processes),
        "device": device,
        "processes": processes,
        "front_end": result.front_end,
        "hardware": hardware(device),
        "versions": software_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    state = whole_state(task.model)
    if result.accelerator.is_main_process:
        write_run(folder, task.model, task.image_processor, metrics, reported, state)
    result.accelerator.wait_for_everyone()
    headline, quality = reported.headline.replace("_", " "), evaluations[split].quality
    reporter.message(
        f"{split} {headline} {100 * quality:.2f} % after {progress.seconds:.0f} s; {folder} is ready to load"
    )
    if result.accelerator.is_main_process:
        _leave_checkpoints(task, folder, reporter)
    return Run(folder, metrics, task.model, result.record.losses)


def _evaluated_on(task: TrainingTask, split: str) -> dict[str, Any] | None:
    """Fingerprint of the images that the figures are of; None for a task whose data is no `SplitTables`."""
    if not isinstance(task.data, SplitTables):
        return None
    return {"split": split, **content_fingerprint(task.data.splits[split], task.names).to_dict()}


def _leave_checkpoints(task: TrainingTask, folder: Path, reporter: Reporter) -> None:
    """Removes the checkpoints of a finished run if its recipe says so; otherwise reports their remaining use."""
    place = folder / "checkpoints"
    if task.recipe.training.keep_checkpoints == 0:
        shutil.rmtree(place, ignore_errors=True)
    elif place.is_dir():
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        reporter.message(
            f"{place} ({size / 1e6:.1f} MB) serves only to train longer ({stated(resume=True)} with more "
            f"{argument('epochs')}) and may be removed; {stated(keep_checkpoints=0)} leaves none"
        )


__all__ = ["Run", "complete_run", "finetune"]
