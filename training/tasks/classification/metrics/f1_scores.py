"""Precision, recall and F1 from counts per class: how many are found, are there, and are claimed."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def f1_scores(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """F1 of each class, 0 where it neither occurs nor is claimed.

    Args:
        found: (..., L), times that the class was there and claimed.
        support: (..., L), times that it was there.
        claimed: (..., L), times that it was claimed.
    """
    return 2 * found / np.maximum(support + claimed, 1)


def macro_f1(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """F1 averaged over the classes that occur, (...); not a number where none does."""
    present = support > 0
    total = np.where(present, f1_scores(found, support, claimed), 0.0).sum(axis=-1)
    number = present.sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def weighted_f1(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """F1 averaged over the classes by how often each occurs, (...)."""
    weighted: np.ndarray = (f1_scores(found, support, claimed) * support).sum(axis=-1) / support.sum(axis=-1)
    return weighted


def class_rows(
    names: Sequence[str], found: np.ndarray, support: np.ndarray, claimed: np.ndarray
) -> list[dict[str, Any]]:
    """Of each class its `label`, `precision`, `recall` and `f1` (0 where undefined) and `images`, its support."""
    scores = f1_scores(found, support, claimed)
    return [
        {
            "label": name,
            "precision": float(f / c) if c else 0.0,
            "recall": float(f / s) if s else 0.0,
            "f1": float(score),
            "images": int(s),
        }
        for name, f, s, c, score in zip(names, found, support, claimed, scores, strict=True)
    ]


__all__ = ["class_rows", "f1_scores", "macro_f1", "weighted_f1"]
