"""The folder that a run leaves: a model that loads as it is, its card, and how it came about."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.argument_names import argument
from ..data.text.json_text import json_text
from ..hub.card.model_card import write_card
from ..hub.folders import TargetError
from ..hub.progress_bars import quiet_transformers
from .recipe.recipe import Recipe, RecipeError
from .recipe.resumable import MAY_CHANGE, refused_changes
from .recipe.sealed_file import is_edited, replace_text, seal
from .run_lock import LOCK, RunLock
from .tasks.detection.error_kinds import count_errors
from .tasks.detection.metrics import DetectionCounts
from .tasks.detection.plots import save_error_kinds, save_precision_recall
from .tasks.plots import save_confusion_matrix, save_learning_curves, save_reliability

RECIPE, METRICS = "recipe.yaml", "metrics.json"


@contextmanager
def open_run_folder(folder: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """Makes the folder of a new run, or checks that of one to resume, and keeps others from it while it is open.

    Raises:
        TargetError: It holds something already, or cannot be written, or there is nothing to resume.
        RecipeError: The run in it had another recipe; the fields that differ are named.
    """
    if folder.is_file():
        raise TargetError(f"{folder} is a file; name a folder")
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error


def _begin(folder: Path, recipe: Recipe) -> None:
    if any(path.name != LOCK for path in folder.iterdir()):
        what = "another run" if (folder / RECIPE).is_file() else "files already"
        raise TargetError(
            f"{folder} holds {what}; name another folder, or give {argument('resume')} to go on with a run"
        )
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
    """Writes a run's recipe with a checksum, as a whole.

    Raises:
        TargetError: It cannot be written.
    """
    try:
        replace_text(folder / RECIPE, seal(recipe.to_yaml()))
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error


def read_run_recipe(folder: Path) -> Recipe:
    """The recipe of a run to resume.

    Raises:
        TargetError: There is no run.
        RecipeError: The file is not what the run wrote.
    """
    file = run_recipe(folder)
    if is_edited(file.read_text(encoding="utf-8", errors="replace")):
        raise RecipeError(
            f"{file} is not what the run wrote (its checksum differs), so that resuming would mix two recipes; "
            f"give changes as options, or begin a new run with {argument('recipe')}"
        )
    return Recipe.from_yaml(file)


def run_recipe(folder: Path) -> Path:
    """The recipe's file of a run to resume.

    Raises:
        TargetError: There is no run.
    """
    if not (folder / RECIPE).is_file():
        raise TargetError(f"{folder} holds no run to resume ({RECIPE} is missing)")
    return folder / RECIPE


def free_run_folder(folder: Path) -> None:
    """Gives up the folder of a run that could not begin, so that the corrected one can have it."""
    for name in (RECIPE, LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds something
        folder.rmdir()


def measurements(counts: Any, names: list[str]) -> dict[str, Any]:
    """What `metrics.json` says of a split besides its figures.

    Of a classifier intervals, classes, confusion, calibration; of a detector classes and kinds of errors.
    """
    if isinstance(counts, DetectionCounts):
        errors = count_errors(counts.pairs(), counts.num_labels)
        return {"per_class": counts.per_class(names), "errors": errors.to_dict(names)}
    confusion = counts.confusion
    return {
        "intervals": {name: list(ends) for name, ends in counts.intervals().items()},
        "share_intervals": "wilson",  # of accuracies; runs without the entry have bootstrap intervals of all figures
        "per_class": counts.per_class(names),
        "confusion": confusion.tolist() if confusion is not None and len(names) <= 200 else None,
        "reliability": counts.reliability(),
    }


def write_run(
    folder: Path,
    model: PreTrainedModel,
    image_processor: Any,
    metrics: dict[str, Any],
    counts: Any,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes model, processor, metrics, pictures and the card into a run's folder.

    Args:
        folder: Holds `recipe.yaml` already.
        model: With the weights to publish.
        image_processor: The evaluation transform.
        metrics: The content of `metrics.json`.
        counts: Of the split that the results are of.
        state: The model's tensors, where it is sharded.
    """
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=state)
    image_processor.save_pretrained(folder)
    save_learning_curves(metrics["history"], folder / "learning_curves.png", counts.headline)
    if isinstance(counts, DetectionCounts):
        save_precision_recall(counts.curves(), names, folder / "precision_recall.png")
        save_error_kinds(count_errors(counts.pairs(), counts.num_labels), names, folder / "errors.png")
    elif counts.confusion is not None:
        save_confusion_matrix(counts.confusion.numpy(), names, folder / "confusion_matrix.png")
    if metrics.get("reliability"):
        save_reliability(metrics["reliability"], folder / "reliability.png")
    replace_text(folder / METRICS, json_text(metrics, indent=1) + "\n")
    write_card(folder)


__all__ = [
    "METRICS",
    "RECIPE",
    "free_run_folder",
    "measurements",
    "open_run_folder",
    "read_run_recipe",
    "run_recipe",
    "write_recipe",
    "write_run",
]
