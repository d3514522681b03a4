"""Division of a recipe's batch into parts that fit into memory, found by measured trials: `--batch-size auto`."""

import gc
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import nn

from ...data.argument_names import stated
from ..recipe.recipe import Recipe, RecipeError
from ..runtime.batch_loading import closing_loaders
from ..runtime.progress import Reporter
from ..tasks.task import TrainingTask
from .search import Trials
from .step_memory import StepMemory
from .steps import WRITES_NOTHING, TrialSteps, as_in_a_run, possible_parts

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_alone(processes: int, given: Collection[str]) -> None:
    """Rejects a trial in one of several processes, in which those with less memory would wait for the others.

    Args:
        processes: Number of processes of the run.
        given: Dotted names of the recipe fields that were stated.

    Raises:
        ValueError: There are several processes, or the number of parts is stated too.
    """
    if "training.accumulation" in given:
        raise ValueError(
            f"{stated(batch_size='auto')} finds training.accumulation, which is stated too; give one of them"
        )
    if processes > 1:
        raise ValueError(
            f"{stated(batch_size='auto')} measures a run of one process, and this one has {processes}: give the number "
            "of images, and into how many parts they are divided as training.accumulation"
        )


def with_fitting_parts(
    recipe: Recipe, build: Callable[[Recipe], TrainingTask], folder: Path, reporter: Reporter
) -> Recipe:
    """Returns the recipe with the accumulation with which the most images at once fit into memory.

    The batch of a step stays that of the recipe, so that its learning rate and its figures hold.

    Args:
        recipe: Recipe of the run.
        build: Function that makes a task of a recipe, which is thrown away after the trials.
        folder: Folder of the run, for what its task computes once and keeps.
        reporter: Receives the result.

    Raises:
        RecipeError: Not even the smallest part fits.
    """
    quiet = {**WRITES_NOTHING, "data.workers": 0, "data.cache": "off"}
    batch = recipe.training.batch_size
    with closing_loaders(), as_in_a_run(recipe):
        steps = TrialSteps(build(recipe.with_values(quiet)), folder)
        memory = StepMemory(steps.device)
        trials = tried_parts(steps, memory)
        parts = steps.task.batch_size // trials.largest if trials.largest else None
        notes = _notes(steps.task, parts)
        whole = steps.task.batch_size
        del steps
    _free(memory.device)
    if parts is None:
        least = trials.done[-1]
        needed = "more than there is" if least.needed is None else f"{least.needed / 2**20:.0f} MiB"
        raise RecipeError(
            f"training.batch_size: a step of {least.images} of the {batch} images at once needs {needed}, and the "
            f"limit is {memory.limit_text()}; take a smaller model or image size, or model.activation_checkpointing"
        )
    reporter.message(found_text(trials, memory, whole, parts))
    for note in notes:
        reporter.message(note)
    return recipe.with_values({"training.accumulation": parts})


def tried_parts(steps: TrialSteps, memory: StepMemory) -> Trials:
    """Tries the numbers of images at once that divide a step's batch.

    On the host one step is made before, so that what is needed whatever the batch counts as there already.

    Args:
        steps: Steps of a task that is thrown away.
        memory: Memory of the device, which is read anew after that step.
    """
    task = steps.task
    images = int(task.data.sizes.get("train", task.batch_size))
    sizes = sorted(task.batch_size // parts for parts in possible_parts(task.recipe, task.batch_size, images))
    if not memory.on_cuda:
        steps.needed(sizes[0], memory)
        memory.measure_base()
    trials = Trials(lambda count: steps.needed(count, memory), memory.budget)
    if memory.on_cuda:
        trials.descend(sizes)
    else:
        trials.ascend(sizes)
    return trials


def found_text(trials: Trials, memory: StepMemory, batch: int, parts: int) -> str:
    """Describes the result of trials that found a size, for messages."""
    best = next(one for one in reversed(trials.done) if one.images == trials.largest)
    taken = f"{(best.needed or 0) / 2**20:.0f} MiB measured, limit {memory.limit_text()}"
    if parts == 1:
        return f"batch size: all {batch} images of a step fit at once ({taken}); training.accumulation is 1"
    return (
        f"batch size: {best.images} of the {batch} images of a step fit at once ({taken}); they are computed in "
        f"{parts} parts: training.accumulation is {parts}"
    )


def _notes(task: TrainingTask, parts: int | None) -> list[str]:
    """Says what depends on the parts of a batch, if anything does."""
    trained = any(isinstance(module, _BATCH_NORMS) and module.training for module in task.learner.modules())
    if parts in (None, 1) or not trained:
        return []
    return [
        "the model has batch norms, whose statistics are those of a part: its figures are not those of the whole batch"
    ]


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


__all__ = ["check_alone", "found_text", "tried_parts", "with_fitting_parts"]
