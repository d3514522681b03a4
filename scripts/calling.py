"""Steps of every command between reading its options and its work: checking paths, quieting libraries."""

import functools
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import typer
from vithub.data.named_paths import MissingPathError, missing_path
from vithub.hub.import_hooks import after_import
from vithub.hub.known_models import known_source, near_name
from vithub.training.recipe.model_names import DETECTOR_FROM_SCRATCH, is_from_scratch, misspelt_from_scratch

# Arguments that name files, folders or Hub ids, with the kind of thing they name, by command.
SOURCES: dict[str, dict[str, str]] = {
    "finetune": {"model": "model", "data": "data set", "recipe": "recipe", "teacher": "model"},
    "pretrain": {"model": "model", "data": "data set", "recipe": "recipe", "teacher": "model", "probe": "data set"},
    "evaluate": {"folder": "model", "data": "data set"},
    "predict": {"folder": "model", "images": "image", "data": "data set"},
    "convert": {"source": "model"},
    "publish": {"folder": "model"},
    "explain": {"model": "model", "images": "image"},
    "demo": {"models": "model", "examples": "image"},
    "check_data": {"data": "data set", "model": "model"},
    "compare": {"data": "data set"},
    "runs": {"folder": "folder"},
    "sweep": {"model": "model", "data": "data set", "recipe": "recipe"},
    "verify": {"source": "model", "key": "key", "data": "data set"},
}
_NOT_PATHS = {"data": {"digits"}}


def prepared(command: Callable[..., None]) -> Callable[..., None]:
    """Makes a command check that its inputs exist first: this is fast, whereas importing libraries takes long.

    Raises:
        MissingPathError: A path does not exist; the message names it and what was expected there.
    """

    @functools.wraps(command)
    def call(**options: Any) -> None:
        sources = SOURCES.get(command.__name__, {})
        if command.__name__ in ("finetune", "pretrain", "sweep") and _is_new_model(options.get("model")):
            sources = {option: what for option, what in sources.items() if option != "model"}
        refuse_missing(sources, options)
        command(**options)

    return call


def refuse_missing(sources: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Raises an error if an option names a path that does not exist."""
    for option, what in sources.items():
        given = options.get(option)
        for name in given if isinstance(given, list) else [given]:
            if name is None or name in _NOT_PATHS.get(option, ()) or _is_url(name):
                continue
            source = known_source(name) if what == "model" else name
            if (problem := missing_path(_bare(source))) is None:
                continue
            if option == "recipe":
                raise typer.BadParameter(f"--recipe: there is no file {name}: {problem}")
            meant = near_name(str(name)) if what == "model" and "/" not in str(name) else ""
            raise MissingPathError(f"there is no {what} at {name}: {problem}{meant}")


def _is_new_model(name: str | None) -> bool:
    """Whether a name is that of a model from scratch.

    Raises:
        MissingPathError: The name is a misspelling of one.
    """
    if name is None or Path(name).expanduser().exists():
        return False
    if hint := misspelt_from_scratch(name):
        raise MissingPathError(f"there is no model {name!r}; {hint}")
    return name == DETECTOR_FROM_SCRATCH or is_from_scratch(name)


def _is_url(name: str | Path) -> bool:
    return isinstance(name, str) and urlparse(name).scheme in ("http", "https")


def _bare(name: str | Path) -> str | Path:
    """Removes the prefix of timm's Hub ids from a name."""
    return name.removeprefix("hf-hub:").removeprefix("hf_hub:") if isinstance(name, str) else name


def quiet_libraries() -> None:
    """Switches off the progress bars of libraries, which flash by in a terminal and are noise elsewhere.

    A library that is not imported yet is silenced on import, so that this takes no time.
    """
    steps = {"transformers.utils.logging": _quiet_transformers}
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        steps["huggingface_hub.utils.tqdm"] = _quiet_hub
    after_import(steps)


def _quiet_transformers() -> None:
    import_module("transformers.utils.logging").disable_progress_bar()


def _quiet_hub() -> None:
    import_module("huggingface_hub.utils.tqdm").disable_progress_bars()


__all__ = ["SOURCES", "prepared", "quiet_libraries", "refuse_missing"]
