"""Labels of a data set: class names, and their conversion to numbers from 0, checked row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value

from ..sources import DataError


@dataclass(frozen=True)
class LabelSet:
    """Labels of a data set.

    Args:
        names: Class names, in the order of the class numbers.
        multi_label: Whether a row may have any number of labels.
    """

    names: tuple[str, ...]
    multi_label: bool = False


def find_labels(tables: dict[str, Dataset], column: str) -> LabelSet:
    """Finds the class names, from the type of the label column or from the sorted values of all tables.

    Raises:
        DataError: There are fewer than two classes, or the column holds neither class labels, integers nor strings.
    """
    feature = next(iter(tables.values())).features[column]
    multi_label = isinstance(feature, List)
    inner = feature.feature if isinstance(feature, List) else feature
    if isinstance(inner, ClassLabel):
        names = tuple(inner.names)
    elif isinstance(inner, Value) and inner.dtype.startswith(("string", "large_string", "int", "uint", "bool")):
        values = {
            value for table in tables.values() for value in _flat(table[column], multi_label) if not _is_blank(value)
        }
        names = tuple(str(value) for value in sorted(values))
    else:
        raise DataError(f"column {column!r} must hold class labels, whole numbers or names, got {feature}")
    if len(names) < 2:
        found = f"only the class {names[0]!r}" if names else "no class"
        raise DataError(
            f"the data has {found} (column {column!r}), and a classifier needs two or more: a folder of images for "
            "each, or as many different values in the column"
        )
    return LabelSet(names, multi_label)


def numbered(table: Dataset, column: str, labels: LabelSet, split: str) -> Dataset:
    """Converts `column` of a table to class numbers (lists of them with `multi_label`).

    Raises:
        DataError: A label is missing or not among the classes; the message names the first such row.
    """
    feature = table.features[column]
    inner = feature.feature if isinstance(feature, List) else feature
    to_number = {name: number for number, name in enumerate(labels.names)}
    rows: list[Any] = list(table[column])
    converted: list[Any] = []
    for row, value in enumerate(rows):
        values = value if labels.multi_label else [value]
        if values is None or any(not _known(item, inner, to_number) for item in values):
            raise DataError(
                f"row {row} of split {split!r} has the {column} {value!r}; the labels are "
                f"{shown_names(labels.names)}"
                + (f", numbered 0 to {len(labels.names) - 1}" if _is_number(inner) else "")
            )
        numbers = [item if isinstance(inner, ClassLabel) else to_number[str(item)] for item in values]
        converted.append(numbers if labels.multi_label else numbers[0])
    wanted = ClassLabel(names=list(labels.names))
    table = table.remove_columns(column)
    return table.add_column(column, converted, feature=List(wanted) if labels.multi_label else wanted)


def _known(item: Any, feature: Any, to_number: dict[str, int]) -> bool:
    if isinstance(feature, ClassLabel):
        return isinstance(item, int) and 0 <= item < len(to_number)
    return not _is_blank(item) and str(item) in to_number


def _is_blank(value: Any) -> bool:
    """Whether a cell has no label: it is empty, or holds nothing but spaces."""
    return value is None or (isinstance(value, str) and not value.strip())


def _is_number(feature: Any) -> bool:
    return isinstance(feature, ClassLabel)


def _flat(values: Any, nested: bool) -> list[Any]:
    return [item for value in values for item in (value or [])] if nested else list(values)


def shown_names(names: Sequence[str], limit: int = 12) -> str:
    """The first names, followed by the number of the remaining ones."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def label_counts(table: Dataset, column: str, labels: LabelSet) -> np.ndarray:
    """Number of occurrences of each class in a numbered table, (C,)."""
    return np.bincount(_flat(table[column], labels.multi_label), minlength=len(labels.names))


__all__ = ["LabelSet", "find_labels", "label_counts", "numbered", "shown_names"]
