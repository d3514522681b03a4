"""Named recipes: files beside this one, each opening with its command, expected time and expected accuracy."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from .recipe import Recipe, RecipeError, read_content
from .sealed_file import is_whole
from .yaml_text import read_yaml

_FOLDER = files(__package__) / "presets"


def preset_names() -> list[str]:
    """All named recipes."""
    return sorted(file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The file of a named recipe, with its opening lines."""
    if name not in preset_names():
        raise RecipeError(f"preset: there is no {name!r}; there are {', '.join(preset_names())}")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def preset(name: str) -> Recipe:
    """A named recipe, with the defaults of what its file leaves out."""
    content: dict[str, Any] = read_yaml(preset_text(name))
    return Recipe.from_dict({"preset": name, **content})


def read_recipe(file: str | Path) -> Recipe:
    """A recipe from a file that a run or a person wrote.

    A run's recipe is taken as it is. One that a person wrote begins from the preset that its field `preset` names: what
    it does not state, single entries of `model.fields` included, is that preset's, and without a preset the default.

    Raises:
        RecipeError: A wrong field, or there is no such preset; the file is named.
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
    """Nested sections of both; where both have a value, that of `changes`."""
    merged = dict(base)
    for name, value in changes.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


__all__ = ["preset", "preset_names", "preset_text", "read_recipe"]
