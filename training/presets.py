"""Named recipes: files beside this one, each opening with its command, expected time and expected accuracy."""

from importlib.resources import files
from typing import Any

from .recipe import Recipe, RecipeError
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


__all__ = ["preset", "preset_names", "preset_text"]
