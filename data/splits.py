"""Training, validation and test splits of a data set, found by name or drawn at random by a seed."""

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, IterableDataset

from .argument_names import argument, column_argument, stated_field
from .sources import SPLIT_NAMES, DataError

logger = logging.getLogger("vithub")
Table = TypeVar("Table")


class SplitTables:
    """Base class of data sets, with their three splits, and the names of those drawn from the training split."""

    train: Any
    validation: Dataset
    test: Dataset | None
    drawn: frozenset[str] = frozenset()

    @property
    def splits(self) -> dict[str, Dataset]:
        """Existing splits by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: table for name, table in found.items() if table is not None}

    @property
    def reported(self) -> str:
        """Name of the split that a run reports: "test" if it exists, else "validation"."""
        return "validation" if self.test is None else "test"

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each split, without splits that are streams."""
        return {name: len(table) for name, table in self.splits.items() if not isinstance(table, IterableDataset)}


def split_role(name: str, whole: bool = False) -> str | None:
    """Split that the name of a file or folder stands for: "train", "validation" or "test", or None.

    Args:
        name: Name of a file or folder, such as "instances_val2017".
        whole: Whether the whole name must be that of a split.
    """
    words = [name.lower()] if whole else re.findall("[a-z]+", name.lower())
    return next((role for role, usual in SPLIT_NAMES.items() if any(word in usual for word in words)), None)


def find_splits(tables: Mapping[str, Table], named: Mapping[str, str | None]) -> dict[str, Table]:
    """Finds the tables of "train", "validation" and "test" among the source's splits, as far as they exist.

    Args:
        tables: Table of each split, by the source's split names.
        named: Source's name of each of the three splits; None finds it by the usual names.

    Raises:
        DataError: A named split does not exist, or no training split is found.
    """
    found: dict[str, Table] = {}
    for role, usual in SPLIT_NAMES.items():
        name = named.get(role)
        if name is not None:
            if name not in tables:
                raise DataError(
                    f"there is no split {name!r} for {role}, which {argument(f'{role}_split')} names; the splits are: "
                    f"{', '.join(tables)}"
                )
            found[role] = tables[name]
        else:
            matches = [split for split in tables if split.lower() in usual]
            if matches:
                found[role] = tables[matches[0]]
    if "train" not in found:
        if len(tables) != 1:
            raise DataError(
                f"no training split among: {', '.join(tables)}; call one 'train', or state which it is by "
                f"{stated_field('data.train_split', next(iter(tables)))}"
            )
        found["train"] = next(iter(tables.values()))
        if found.keys() - {"train"}:  # the only table has the name of an evaluation split
            found = {"train": found["train"]}
    return found


def without_unlabelled(tables: Mapping[str, Dataset], column: str) -> tuple[dict[str, Dataset], list[str]]:
    """Leaves out a test split whose labels were never published: each is missing, or -1; a note and a warning say so.

    Args:
        tables: Table of each split.
        column: Name of the label column.
    """
    notes: list[str] = []
    kept = dict(tables)
    for name, table in tables.items():
        if len(tables) == 1 or name.lower() not in SPLIT_NAMES["test"] or column not in table.column_names:
            continue
        if len(table) and all(value is None or value == -1 for value in table[column]):
            notes.append(f"the {name} split has no labels (all of its {len(table)} are missing or -1) and is left out")
            logger.warning("%s", notes[-1])
            del kept[name]
    return kept, notes


def check_split(split: str, splits: Collection[str], data: str) -> None:
    """Raises a `DataError` if a data set has no such split.

    Args:
        split: Name of the split that was asked for.
        splits: Names of the splits that there are.
        data: Name of the data set, for the message.
    """
    if split not in splits:
        raise DataError(f"there is no split {split!r} in {data}; {argument('split')} must be {' or '.join(splits)}")


def complete_splits(
    tables: Mapping[str, Dataset],
    classes: Callable[[Dataset], Sequence[int]],
    fractions: tuple[float, float],
    seed: int,
) -> tuple[dict[str, Dataset], list[str]]:
    """Draws a missing validation split, and a missing test split beside it, from the training split.

    Where there is a validation split, nothing is drawn.

    Args:
        tables: Table of "train", and of the other splits that exist.
        classes: Function that returns the class of each row, (N,), by which the draw is stratified.
        fractions: Fractions of the training split for validation, in (0, 1), and for the test, in [0, 1).
        seed: Seed of the draw.

    Returns:
        The tables of all splits, and notes for readers of the results.

    Raises:
        DataError: A fraction leaves nothing to train on, or a split would be empty.
    """
    if "validation" in tables:
        missing = "there is no test split: the figures are of the validation split, which also chose the best epoch"
        return dict(tables), [] if "test" in tables else [missing]
    draw_test = "test" not in tables and fractions[1] > 0
    validation_fraction, test_fraction = fractions[0], fractions[1] if draw_test else 0.0
    if not 0 < validation_fraction < 1 or not 0 <= test_fraction < 1 or validation_fraction + test_fraction >= 1:
        fields = " and ".join(column_argument(f"{role}_fraction") for role in ("validation", "test"))
        raise DataError(
            f"{fields} must be shares of the images, above 0 for validation and below 1 together, got "
            f"{validation_fraction:g} and {test_fraction:g}"
        )
    table = tables["train"]
    validation, test, train = stratified_parts(classes(table), (validation_fraction, test_fraction), seed)
    parts = {"train": train, "validation": validation} | ({"test": test} if draw_test else {})
    for role, rows in parts.items():
        if len(rows) == 0:
            raise DataError(
                f"{len(table)} images are too few to draw a {role} split from: give at least 3 images of each class, "
                "or splits of their own (folders train, validation and test)"
            )
    drawn = "validation and test splits were" if draw_test else "validation split was"
    note = f"the {drawn} drawn from the training images (stratified, seed {seed})"
    return {**tables, **{role: table.select(rows) for role, rows in parts.items()}}, [note]


def stratified_parts(classes: Sequence[int], fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Draws disjoint parts of the rows with the classes in equal proportion.

    Each part gets its fraction of the rows of every class, rounded, and at least one where the class has enough rows
    for all parts; the last part of the result has the remaining rows.

    Args:
        classes: Class of each row, (N,).
        fractions: Fraction of each part, in [0, 1), less than 1 in sum.
        seed: Seed of the draw.

    Returns:
        One sorted array of row numbers per fraction, then that of the remaining rows.
    """
    values = np.asarray(classes)
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for value in np.unique(values):
        rows = generator.permutation(np.flatnonzero(values == value))
        wanted = [round(fraction * len(rows)) if fraction else 0 for fraction in fractions]
        if len(rows) > len(fractions):
            wanted = [max(count, 1) if fraction else 0 for count, fraction in zip(wanted, fractions, strict=True)]
        start = 0
        for part, count in enumerate(wanted):
            parts[part].append(rows[start : start + count])
            start += count
        parts[-1].append(rows[start:])
    return [np.sort(np.concatenate(part)) if part else np.empty(0, dtype=np.int64) for part in parts]


__all__ = [
    "SplitTables",
    "check_split",
    "complete_splits",
    "find_splits",
    "split_role",
    "stratified_parts",
    "without_unlabelled",
]
