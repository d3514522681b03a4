"""Folder that a run writes: a loadable model, its card, and a record of how it was trained."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.argument_names import argument
from ..data.text.json_text import json_text
from ..data.whole_files import write_whole
from ..hub.bundle.flat_sources import is_flat_source
from ..hub.card.model_card import write_card
from ..hub.folders import TargetError, staged_files, write_errors
from ..hub.progress_bars import quiet_transformers
from .recipe.recipe import Recipe, RecipeError
from .recipe.resumable import MAY_CHANGE, refused_changes
from .recipe.run_files import DRY_RUN_PICTURE, METRICS, RECIPE
from .recipe.sealed_file import is_edited, seal
from .run_lock import LOCK, RunLock
from .tasks.evaluation import Metrics
from .tasks.plots import save_learning_curves

_MAY_BE_THERE = (LOCK, DRY_RUN_PICTURE, f".{RECIPE}.new")  # the last of a run that was killed while it began


@contextmanager
def open_run_folder(folder: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """Makes the folder of a new run, or checks that of a run to resume, and locks it while it is open.

    Raises:
        TargetError: The folder holds files already, or cannot be written, or there is nothing to resume.
        RecipeError: The run in the folder had another recipe; the differing fields are named.
    """
    _check_folder(folder)
    if resume:
        run_recipe(folder)
    else:
        _make(folder)
    with RunLock(folder):
        if resume:
            _check_same(folder, recipe)
        else:
            _begin(folder, recipe)
        yield


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise TargetError(f"{folder} is a file; name a folder")


def is_free(folder: Path) -> bool:
    """Whether a folder can be taken for a new run: it does not exist, or holds nothing but a dry run's picture."""
    return not folder.exists() or (folder.is_dir() and [path.name for path in folder.iterdir()] == [DRY_RUN_PICTURE])


def check_unused(folder: Path) -> None:
    """Rejects a folder that a new run may not use.

    Raises:
        TargetError: It holds files already, or is a file.
    """
    _check_folder(folder)
    if folder.is_dir() and any(path.name not in _MAY_BE_THERE for path in folder.iterdir()):
        what = "another run" if (folder / RECIPE).is_file() else "files already"
        raise TargetError(
            f"{folder} holds {what}; name another folder, or give {argument('resume')} to go on with a run"
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error


def _begin(folder: Path, recipe: Recipe) -> None:
    check_unused(folder)
    try:
        write_recipe(folder, recipe)
    except TargetError:
        free_run_folder(folder)
        raise


def _check_same(folder: Path, recipe: Recipe) -> None:
    if differences := refused_changes(read_run_recipe(folder), recipe):
        raise RecipeError(
            f"the run in {folder} has another recipe: {'; '.join(differences)}; what may change on resuming: "
            f"{', '.join(sorted(MAY_CHANGE))}"
        )


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Writes a run's recipe with a checksum, atomically.

    Raises:
        TargetError: The file cannot be written.
    """
    try:
        write_whole(folder / RECIPE, seal(recipe.to_yaml()), durable=True)
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error


def read_run_recipe(folder: Path) -> Recipe:
    """Reads the recipe of a run to resume.

    Raises:
        TargetError: The folder holds no run.
        RecipeError: The file was edited after the run wrote it.
    """
    file = run_recipe(folder)
    if is_edited(file.read_text(encoding="utf-8", errors="replace")):
        raise RecipeError(
            f"{file} is not what the run wrote (its checksum differs), so that resuming would mix two recipes; "
            f"give changes as options, or begin a new run with {argument('recipe')}"
        )
    return Recipe.from_yaml(file)


def run_recipe(folder: Path) -> Path:
    """Returns the path of the recipe of a run to resume.

    Raises:
        TargetError: The folder holds no run.
    """
    if not (folder / RECIPE).is_file():
        raise TargetError(f"{folder} holds no run to resume ({RECIPE} is missing)")
    return folder / RECIPE


def free_run_folder(folder: Path) -> None:
    """Removes the files of a run that could not begin, so that a corrected run can use the folder."""
    for name in (RECIPE, LOCK):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # a trial of batch sizes may have kept features there
    with suppress(OSError):  # the folder holds other files
        folder.rmdir()


def write_run(
    folder: Path,
    model: PreTrainedModel,
    image_processor: Any,
    metrics: dict[str, Any],
    reported: Metrics,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes model, processor, metrics, plots and the card into a run's folder.

    An earlier model in the folder stays whole until all files of the new one are written.

    Args:
        folder: Folder of the run, which holds `recipe.yaml` already.
        model: Model with the weights to publish.
        image_processor: Image processor of the evaluation transform.
        metrics: Content of `metrics.json`.
        reported: Metrics of the reported split.
        state: Whole tensors of the model if it is sharded, else None.

    Raises:
        TargetError: The disk is full or the folder cannot be written.
    """
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    with staged_files(folder, last=METRICS) as staging:
        with quiet_transformers():
            model.save_pretrained(staging, state_dict=state)
        image_processor.save_pretrained(staging)
        save_learning_curves(metrics["history"], staging / "learning_curves.png", reported.headline)
        reported.save_plots(names, staging)
        write_whole(staging / METRICS, json_text(metrics, indent=1) + "\n", durable=True)
        made = {file.name for file in staging.iterdir()}
    with write_errors(folder):
        _remove_outdated(folder, made)
        write_card(folder)


def _remove_outdated(folder: Path, made: set[str]) -> None:
    """Removes parts of the weights and code of an earlier model in the folder that the new one does not have."""
    for file in [*folder.glob("model*.safetensors*"), *folder.glob("*.py")]:
        code = file.suffix == ".py"
        if file.name not in made and (not code or is_flat_source(file.read_text(encoding="utf-8", errors="replace"))):
            file.unlink()


__all__ = [
    "check_unused",
    "free_run_folder",
    "is_free",
    "open_run_folder",
    "read_run_recipe",
    "run_recipe",
    "write_recipe",
    "write_run",
]
