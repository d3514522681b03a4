"""Reader of class weights that a person wrote into a file."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .recipe import RecipeError
from .sections import BALANCING
from .yaml_text import read_yaml


def class_weights_from(given: str | Path | Mapping[str, float] | None) -> Any:
    """Returns class weights as a recipe's field takes them; a file's name is replaced by the weights in it.

    Args:
        given: "balanced", "sqrt", weights by label, a file (see `read_class_weights`), or None.
    """
    if given is None or isinstance(given, Mapping) or (isinstance(given, str) and given in BALANCING):
        return given if not isinstance(given, Mapping) else dict(given)
    return read_class_weights(given)


def read_class_weights(file: str | Path) -> dict[str, Any]:
    """Reads weights by label from a file.

    Args:
        file: YAML or JSON file that maps labels to weights (`rose: 2.0`), or a CSV file with the columns `label` and
            `weight`. The weights themselves are checked by the recipe.

    Raises:
        RecipeError: The file cannot be read or holds something else; the message names the file and the row.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise RecipeError(
            f"class weights must be {', '.join(BALANCING)} or a file of weights by label, got {str(file)!r}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = _from_csv(path, text) if path.suffix.lower() == ".csv" else read_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} holds no readable class weights: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must map labels to weights, got {type(content).__name__}")
    return content


def _from_csv(path: Path, text: str) -> dict[str, float]:
    reader = csv.DictReader(text.splitlines())
    if not {"label", "weight"} <= set(reader.fieldnames or ()):
        raise RecipeError(f"{path} must have the columns label and weight, got {', '.join(reader.fieldnames or ())}")
    weights: dict[str, float] = {}
    for row in reader:
        label = row["label"]
        if label in weights:
            raise RecipeError(f"{path}, line {reader.line_num}: the label {label!r} was there before")
        try:
            weights[label] = float(row["weight"])
        except (TypeError, ValueError):
            raise RecipeError(
                f"{path}, line {reader.line_num}: the weight of {label!r} must be a number, got {row['weight']!r}"
            ) from None
    return weights


__all__ = ["class_weights_from", "read_class_weights"]
