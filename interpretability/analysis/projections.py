"""Two-dimensional projections of image features, and metrics of how well the features separate classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from .plots import paper_figure, series_style

METHODS = ("pca", "umap")


@dataclass
class Projection:
    """Two-dimensional projection of sets of features, such as those before and after training.

    Args:
        points: Projected points (images, 2) by name of the set.
        labels: Class indices (images,); None if they are unknown.
        label_names: Class names, in label order; empty without labels.
        method: Projection method, "pca" or "umap".
        shares: Shares of the variance that the two axes explain, by name of the set; empty for UMAP, whose axes have no
            meaning.
        silhouettes: Mean silhouette of the classes, in [-1, 1], by name of the set (see `class_separation`).
        knn_accuracies: Accuracy of nearest neighbours, in [0, 1], by name of the set (see `knn_accuracy`).
    """

    points: dict[str, np.ndarray]
    labels: np.ndarray | None
    label_names: list[str]
    method: str
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    silhouettes: dict[str, float] = field(default_factory=dict)
    knn_accuracies: dict[str, float] = field(default_factory=dict)

    def to_dataframe(self) -> pd.DataFrame:
        """Points, one row per set and image: `features` (name of the set), `image`, `x`, `y` and, if known, `label`."""
        tables = []
        for name, points in self.points.items():
            table = pd.DataFrame(
                {"features": name, "image": np.arange(len(points)), "x": points[:, 0], "y": points[:, 1]}
            )
            if self.labels is not None:
                table["label"] = [self.label_names[label] for label in self.labels]
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def save(self, path: str | Path, *, theme: str = "light") -> None:
        """Plots the points in one panel per set, with a colour and a marker per class.

        Args:
            path: A .png, .pdf or .svg file to write; missing folders are made.
            theme: "light" or "dark".
        """
        classes = [0] if self.labels is None else sorted(set(self.labels.tolist()))
        with paper_figure(path, 0.4 + 3.0 * len(self.points), 3.2, theme) as (figure, colors):
            panels = figure.subplots(1, len(self.points), squeeze=False)[0]
            for axes, (name, points) in zip(panels, self.points.items(), strict=True):
                for label in classes:
                    chosen = points if self.labels is None else points[self.labels == label]
                    style = series_style(colors, label) | {"s": 12, "alpha": 0.8, "linewidths": 0}
                    axes.scatter(*chosen.T, label=self.label_names[label] if self.label_names else None, **style)
                axes.set_title(self._title(name))
                axes.set(xlabel=self._axis(name, 0), ylabel=self._axis(name, 1))
                if self.method == "umap":
                    axes.set(xticks=[], yticks=[])
            if self.labels is not None:
                figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)

    def _axis(self, name: str, number: int) -> str:
        if self.method == "umap":
            return f"UMAP {number + 1} (no unit)"
        return f"component {number + 1} ({self.shares[name][number]:.0%} of the variance)"

    def _title(self, name: str) -> str:
        if name not in self.silhouettes:
            return name
        return f"{name}\nsilhouette {self.silhouettes[name]:.2f}, k-NN {self.knn_accuracies[name]:.1%}"


def project(
    features: np.ndarray | Mapping[str, np.ndarray],
    labels: Sequence[int] | np.ndarray | None = None,
    label_names: Sequence[str] | None = None,
    *,
    method: str = "pca",
    neighbours: int = 10,
    seed: int = 0,
) -> Projection:
    """Projects image features to two dimensions, with metrics of how well they separate the classes.

    The metrics are computed on the features themselves, not on the projected points.

    Args:
        features: Features (images, D), or several such arrays of the same images by name, each projected separately.
        labels: Class indices (images,), from 0; None if they are unknown.
        label_names: Class names, in label order; None uses the numbers.
        method: "pca", or "umap", which needs the extra `vithub[umap]`.
        neighbours: Number of neighbours for `knn_accuracy`; 10 by default.
        seed: Random seed of UMAP; 0 by default.

    Raises:
        ValueError: There are fewer than 3 images, values are not finite, or the sets, labels and names do not fit.
        ImportError: UMAP is not installed.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {list(METHODS)}, got {method!r}")
    sets = dict(features) if isinstance(features, Mapping) else {"features": features}
    sets = {name: _checked(name, values) for name, values in sets.items()}
    counts = {name: len(values) for name, values in sets.items()}
    numbers = None if labels is None else np.asarray(labels)
    if numbers is not None:
        counts["labels"] = len(numbers)
    if len(set(counts.values())) != 1:
        raise ValueError(f"features and labels must be of the same images, got {counts}")
    names = [] if numbers is None else _names(numbers, label_names)
    found = Projection({}, numbers, names, method)
    for name, values in sets.items():
        if method == "pca":
            found.points[name], found.shares[name] = principal_components(values)
        else:
            found.points[name] = _umap(values, seed)
        if numbers is not None:
            found.silhouettes[name] = class_separation(values, numbers)
            found.knn_accuracies[name] = knn_accuracy(values, numbers, neighbours)
    return found


def principal_components(features: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Projects (images, D) on the first two principal components, (images, 2), with their shares of the variance."""
    centred = np.asarray(features, dtype=np.float64) - np.mean(features, axis=0, dtype=np.float64)
    left, spread, right = np.linalg.svd(centred, full_matrices=False)
    left, spread = np.pad(left, ((0, 0), (0, 1))), np.pad(spread, (0, 1))  # a single channel has only one component
    largest = np.abs(right).argmax(axis=1)
    signs = np.append(np.where(right[np.arange(len(right)), largest] < 0, -1.0, 1.0), 1.0)
    shares = spread**2 / max((spread**2).sum(), np.finfo(np.float64).tiny)
    return (left * spread * signs)[:, :2], (float(shares[0]), float(shares[1]))


def class_separation(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw 1987) with the cosine distance: 1 for well separated classes, 0 for mixed ones.

    It is NaN if there is only one class, or if every image has its own class.
    """
    classes = len(np.unique(labels))
    if not 1 < classes < len(labels):
        return float("nan")
    return float(silhouette_score(np.asarray(features, dtype=np.float64), labels, metric="cosine"))


def knn_accuracy(features: np.ndarray, labels: np.ndarray, neighbours: int = 10) -> float:
    """Leave-one-out accuracy of k nearest neighbours with the cosine distance, in [0, 1].

    Each image is classified by its nearest other images; if classes have equally many votes, the nearer one wins.

    Args:
        features: Features (images, D).
        labels: Class indices (images,).
        neighbours: Number of neighbours that vote; 10 by default.

    Raises:
        ValueError: There are not that many other images.
    """
    labels = np.asarray(labels)
    if not 1 <= neighbours < len(labels):
        raise ValueError(f"`neighbours` must lie between 1 and {len(labels) - 1} (images less one), got {neighbours}")
    search = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(np.asarray(features, dtype=np.float64))
    nearest = search.kneighbors(return_distance=False)  # without data, no image is its own neighbour
    _, votes = np.unique(labels, return_inverse=True)
    ballots = np.zeros((len(labels), votes.max() + 1))
    for rank in range(neighbours):  # nearer votes weigh more, but all bonuses together less than one vote
        ballots[np.arange(len(labels)), votes[nearest[:, rank]]] += 1 + 2.0 ** -(rank + 1) / neighbours
    return float((ballots.argmax(axis=1) == votes).mean())


def _checked(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < 3 or not array.shape[1]:
        raise ValueError(f"{name} must be (images, channels) of at least 3 images, got {array.shape}")
    if not np.isfinite(array).all():
        row = int((~np.isfinite(array)).any(axis=1).argmax())
        raise ValueError(f"{name} holds numbers that are not finite, the first in row {row}")
    return array


def _names(labels: np.ndarray, names: Sequence[str] | None) -> list[str]:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"`labels` must be numbers of classes from 0, one per image, got {labels.dtype} {labels.shape}"
        )
    most = int(labels.max())
    if names is None:
        return [str(number) for number in range(most + 1)]
    if len(names) <= most:
        raise ValueError(f"`label_names` has {len(names)} names, and there is a label {most}")
    return list(names)


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    try:
        umap = import_module("umap")
    except ImportError as error:
        raise ImportError("UMAP is an extra: pip install 'vithub[umap]'; or use method='pca'") from error
    neighbours = min(15, len(features) - 1)
    reducer = umap.UMAP(n_components=2, n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(features), dtype=np.float64)


__all__ = ["Projection", "class_separation", "knn_accuracy", "principal_components", "project"]
