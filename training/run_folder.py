"""The folder that a run leaves: a model that loads as it is, its card, and how it came about."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..hub.folders import TargetError
from ..hub.model_card import write_card
from .classification_metrics import ClassificationCounts
from .figures import save_confusion_matrix, save_learning_curves
from .recipe import Recipe, RecipeError

RECIPE, METRICS = "recipe.yaml", "metrics.json"


def open_run_folder(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Makes the folder of a new run, or checks that of one to resume.

    Raises:
        TargetError: It holds something already, or cannot be written, or there is nothing to resume.
        RecipeError: The run in it had another recipe; the fields that differ are named.
    """
    if folder.is_file():
        raise TargetError(f"{folder} is a file; name a folder")
    if resume:
        if not (folder / RECIPE).is_file():
            raise TargetError(f"{folder} holds no run to resume ({RECIPE} is missing)")
        if differences := _differences(Recipe.from_yaml(folder / RECIPE), recipe):
            raise RecipeError(f"the run in {folder} has another recipe: {'; '.join(differences)}")
        return
    if folder.is_dir() and any(folder.iterdir()):
        what = "another run" if (folder / RECIPE).is_file() else "files already"
        raise TargetError(f"{folder} holds {what}; name another folder, or give --resume to go on with a run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error


def _differences(old: Recipe, new: Recipe) -> list[str]:
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return [
        f"{name} is {before.get(name)!r}, not {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def write_run(
    folder: Path,
    model: PreTrainedModel,
    image_processor: Any,
    metrics: dict[str, Any],
    counts: ClassificationCounts,
) -> None:
    """Writes model, processor, metrics, pictures and card into a run's folder.

    Args:
        folder: Holds `recipe.yaml` already.
        model: With the weights to publish.
        image_processor: The evaluation transform.
        metrics: The content of `metrics.json`.
        counts: Of the split that the results are of.
    """
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    model.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    save_learning_curves(metrics["history"], folder / "learning_curves.png")
    save_confusion_matrix(counts.confusion.numpy(), names, folder / "confusion_matrix.png")
    _write_json(folder / METRICS, metrics)
    write_card(folder)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    staging = file.with_name(f".{file.name}")
    staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    staging.replace(file)


def weights_are_finite(model: torch.nn.Module) -> bool:
    """Whether every parameter is a number."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


__all__ = ["METRICS", "RECIPE", "open_run_folder", "weights_are_finite", "write_run"]
