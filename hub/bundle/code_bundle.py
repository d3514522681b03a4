"""Code bundle that makes a saved model loadable without this package: a few flat files and `auto_map`."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING,
    MODEL_FOR_OBJECT_DETECTION_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
)
from transformers.utils import logging

from ...data.whole_files import write_whole
from .flat_sources import flat_sources, is_flat_source

_AUTO_CLASSES: dict[str, Any] = {
    "AutoBackbone": MODEL_FOR_BACKBONE_MAPPING,
    "AutoModel": MODEL_MAPPING,
    "AutoModelForImageClassification": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    "AutoModelForMaskedImageModeling": MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING,
    "AutoModelForObjectDetection": MODEL_FOR_OBJECT_DETECTION_MAPPING,
}
_PACKAGE = __name__.split(".")[0]


def registered_models(config_class: type) -> dict[str, type]:
    """Model classes of the package for a configuration class, by name of the Auto class that builds them."""
    found = {name: mapping[config_class] for name, mapping in _AUTO_CLASSES.items() if config_class in mapping}
    return {name: model for name, model in found.items() if model.__module__.startswith(f"{_PACKAGE}.")}


def auto_map(config_class: type) -> dict[str, str]:
    """Value of `auto_map` in `config.json`: "file.Class" by name of the Auto class."""
    classes = {"AutoConfig": config_class, **registered_models(config_class)}
    return {name: f"{found.__module__.rpartition('.')[2]}.{found.__name__}" for name, found in classes.items()}


@cache
def bundle_files(config_class: type) -> dict[str, str]:
    """Source text by file name that the classes of a configuration need; all these classes share one bundle.

    Raises:
        BundleError: The code cannot be published; see `flat_sources`.
    """
    return flat_sources([config_class.__module__, *(m.__module__ for m in registered_models(config_class).values())])


def write_bundle(model: PreTrainedModel, folder: Path) -> None:
    """Writes the code of a model into the folder it was saved to, and `auto_map` into its `config.json`.

    Files of an earlier bundle that are no longer needed are removed. A folder without `config.json` (adapters only)
    gets no bundle. For a subclass defined outside the package, the code of its parent is written with a warning.

    Raises:
        BundleError: The code cannot be published; see `flat_sources`.
    """
    config_file = folder / "config.json"
    config_class = next((c for c in type(model.config).__mro__ if registered_models(c)), None)
    if config_class is None or not config_file.is_file():
        return
    name = type(model).__name__.removeprefix("FSDP")
    if name not in {found.__name__ for found in registered_models(config_class).values()}:
        logging.get_logger(__name__).warning(
            f"{name} is no class of {_PACKAGE}: the code beside the weights in {folder} is that of "
            f"{', '.join(found.__name__ for found in registered_models(config_class).values())}"
        )
    files = bundle_files(config_class)
    for old in folder.glob("*.py"):
        if old.name not in files and is_flat_source(old.read_text(encoding="utf-8", errors="replace")):
            old.unlink()
    for file_name, text in files.items():
        _replace(folder / file_name, text)
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_map"] = auto_map(config_class)
    _replace(config_file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _replace(file: Path, text: str) -> None:
    """Writes a file atomically, so that no other process reads half of it; an unchanged file is not written."""
    if file.is_file() and file.read_bytes() == text.encode():
        return
    write_whole(file, text)


__all__ = ["auto_map", "bundle_files", "registered_models", "write_bundle"]
