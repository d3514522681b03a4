"""Recipe and folder that a run begins from, chosen by what is given."""

from pathlib import Path
from typing import Any

from ..data.argument_names import argument
from .recipe.presets import preset as named_recipe
from .recipe.presets import read_recipe
from .recipe.recipe import Recipe
from .run_folder import is_free
from .tasks.registry import task_of_source


def resolve_recipe(recipe: Recipe | str | Path | None, preset: str | None, model: str | None, data: Any) -> Recipe:
    """Returns the recipe to begin from: the given one, the named one, or the one that suits model and data.

    Raises:
        ValueError: Both a recipe and a preset are given.
    """
    if recipe is not None and preset is not None:
        raise ValueError(f"{argument('recipe')} and {argument('preset')} are both recipes to begin from: give one")
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return read_recipe(recipe)
    if preset is not None:
        return named_recipe(preset)
    if model is None:
        return named_recipe("digits" if data in (None, "digits") else "from-scratch-small")
    return named_recipe(task_of_source(model).default_preset(model))


def folder_name(recipe: Recipe) -> str:
    """Returns the default name of a run's folder."""
    name = "-".join(Path(source).name.replace("/", "-") for source in (recipe.data.source, recipe.preset))
    return "digits" if recipe.preset == "digits" else name


def free_folder(recipe: Recipe) -> Path:
    """Returns `runs/NAME` for a recipe, with a number appended if that folder is used already."""
    name = folder_name(recipe)
    taken = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in range(1, 10_000))
    return next(folder for folder in taken if is_free(folder))


__all__ = ["folder_name", "free_folder", "resolve_recipe"]
