"""Named recipes: YAML files in `presets/`, each opening with its command, expected time and expected accuracy."""

from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from .recipe import Recipe, RecipeError, read_content
from .sealed_file import is_whole
from .yaml_text import read_yaml

_FOLDER = files(__package__) / "presets"


def preset_names() -> list[str]:
    """Returns the names of all presets, sorted."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """Returns the text of a named recipe's file, with its opening comments."""
    if name not in preset_names():
        raise RecipeError(f"preset: there is no {name!r}; there are {', '.join(preset_names())}")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def preset(name: str) -> Recipe:
    """Returns a named recipe; fields that its file leaves out have their defaults."""
    return Recipe.from_dict({"preset": name, **deepcopy(_content(name))})


@cache
def _content(name: str) -> dict[str, Any]:
    """Content of a named recipe's file, which every check of options reads."""
    content: dict[str, Any] = read_yaml(preset_text(name))
    return content


def read_recipe(file: str | Path) -> Recipe:
    """Reads a recipe from a file that a run or a person wrote.

    A run's recipe is taken unchanged. A recipe that a person wrote begins from the preset in its field `preset`: fields
    that it leaves out, including single entries of `model.fields`, come from that preset, or from the defaults if no
    preset is named.

    Raises:
        RecipeError: A field is wrong, or there is no such preset; the message names the file.
    """
    text, content = read_content(file)
    try:
        named = content.get("preset")
        if isinstance(named, str) and not is_whole(text, content):
            content = _merged(read_yaml(preset_text(named)), content)
        return Recipe.from_dict(content)
    except RecipeError as error:
        raise RecipeError(f"{file}: {error}") from error


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merges nested sections; where both have a value, that of `changes` wins."""
    merged = dict(base)
    for name, value in changes.items():
        before = merged.get(name)
        nested = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merged(before or {}, value) if nested else value
    return merged


__all__ = ["preset", "preset_names", "preset_text", "read_recipe"]
