"""Training, validation and test parts of a data set, found by name or drawn by a seed."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from .sources import SPLIT_NAMES, DataError

Table = TypeVar("Table")


def split_role(name: str, whole: bool = False) -> str | None:
    """What a file or folder is for by its name: "train", "validation" or "test", or None.

    Args:
        name: Such as "instances_val2017".
        whole: The name must be that of a split and nothing else.
    """
    words = [name.lower()] if whole else re.findall("[a-z]+", name.lower())
    return next((role for role, usual in SPLIT_NAMES.items() if any(word in usual for word in words)), None)


def find_splits(tables: Mapping[str, Table], named: Mapping[str, str | None]) -> dict[str, Table]:
    """The tables as "train", "validation" and "test", as far as there are such.

    Args:
        tables: By the source's own names.
        named: The source's name for each of the three; None finds it by the usual names.

    Raises:
        DataError: A named split does not exist, or none can be trained on.
    """
    found: dict[str, Table] = {}
    for role, usual in SPLIT_NAMES.items():
        name = named.get(role)
        if name is not None:
            if name not in tables:
                raise DataError(f"there is no split {name!r} for {role}; the splits are: {', '.join(tables)}")
            found[role] = tables[name]
        else:
            matches = [split for split in tables if split.lower() in usual]
            if matches:
                found[role] = tables[matches[0]]
    if "train" not in found:
        if len(tables) != 1:
            raise DataError(f"no training split among: {', '.join(tables)}; name it with `train_split`")
        found["train"] = next(iter(tables.values()))
        if found.keys() - {"train"}:  # the only table is for evaluation
            found = {"train": found["train"]}
    return found


def stratified_parts(classes: Sequence[int], fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Row numbers of disjoint parts with the classes in equal proportion, each sorted.

    Every class gives a part `fraction` of its rows, rounded, and at least one where it has enough rows for all parts;
    what is left is the last part of the result.

    Args:
        classes: The class of each row, (N,).
        fractions: Of each part, in [0, 1), less than 1 in sum.
        seed: Of the draw.

    Returns:
        One array per fraction, then the rest.
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
    return [np.sort(np.concatenate(part)) for part in parts]


__all__ = ["find_splits", "split_role", "stratified_parts"]
