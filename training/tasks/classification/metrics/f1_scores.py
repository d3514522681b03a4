"""Precision, recall and F1 from counts per class: true positives, positives and predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def f1_scores(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """Computes the F1 of each class; 0 if it neither occurs nor is predicted.

    Args:
        found: True positives per class, (..., L).
        support: Occurrences per class, (..., L).
        claimed: Predictions per class, (..., L).
    """
    return 2 * found / np.maximum(support + claimed, 1)


def macro_f1(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """Computes F1 averaged over the classes that occur, (...); NaN if none occurs."""
    present = support > 0
    total = np.where(present, f1_scores(found, support, claimed), 0.0).sum(axis=-1)
    number = present.sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def weighted_f1(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """Computes F1 averaged over the classes, weighted by their occurrences, (...)."""
    weighted: np.ndarray = (f1_scores(found, support, claimed) * support).sum(axis=-1) / support.sum(axis=-1)
    return weighted


def class_rows(
    names: Sequence[str], found: np.ndarray, support: np.ndarray, claimed: np.ndarray
) -> list[dict[str, Any]]:
    """Lists per class `label`, `precision`, `recall`, `f1` (0 where undefined) and `images` (support)."""
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
