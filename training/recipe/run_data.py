"""Information in a run's folder about the data that it was trained on and the split that it reports."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from ...data.argument_names import argument
from ...data.sources import DataError
from ...hub.checkpoints import CheckpointError, read_json
from .run_files import METRICS, RECIPE
from .sealed_file import is_cut
from .sections import DataSettings
from .yaml_text import read_yaml


def run_data(folder: Path) -> DataSettings:
    """Reads the data section of a run's `recipe.yaml`; others are ignored, as an older version may have written them.

    Raises:
        DataError: The folder holds no recipe.
        CheckpointError: The recipe is damaged.
    """
    file = folder / RECIPE
    if not file.is_file():
        raise DataError(f"{folder} holds no {RECIPE}, so that its data is not known; name it with {argument('data')}")
    try:
        text = file.read_text(encoding="utf-8")
        cut = is_cut(text)
        content = {} if cut else read_yaml(text)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise CheckpointError(f"{file} is no readable YAML: {' '.join(str(error).split())}") from error
    if cut:
        raise CheckpointError(f"{file} was cut short: its last line is missing")
    section = content.get("data", {}) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise CheckpointError(f"{file} holds no recipe: its data section must name fields and values")
    try:
        return DataSettings(**section)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in ("data", *wrong["loc"]))
        raise CheckpointError(f"{file}: {place}: {wrong['msg']}, got {wrong['input']!r}") from error


def reported_split(folder: Path) -> str:
    """Returns the split that a run's `metrics.json` reports.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    split = read_json(folder / METRICS).get("reported_split")
    if not isinstance(split, str):
        raise CheckpointError(f"{folder / METRICS}: reported_split must name a split, got {split!r}; name one yourself")
    return split


__all__ = ["reported_split", "run_data"]
