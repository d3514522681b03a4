"""How far a layer looks: mean attention distance (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, fig. 7).

Shapes: B images, H heads, N tokens (P prefix tokens, then rows * columns patches).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator
from torch import nn

from ..capture.architecture import Architecture, read_architecture
from ..capture.attention_maps import attention_maps
from .layer_features import pixel_batches
from .plots import paper_figure


def mean_attention_distance(
    attention: torch.Tensor, grid: tuple[int, int], patch_hw: tuple[float, float], num_prefix: int = 1
) -> torch.Tensor:
    """Mean distance in pixels between the centres of a patch and of the patches that it attends to.

    For patch i it is sum_j A_ij |x_i - x_j| / sum_j A_ij over patches j; then the mean over i. So prefix tokens are
    left out on both sides, and what a patch pays to them does not count as looking nowhere.

    Args:
        attention: (B, H, N, N) weights, at least 0; row i is what token i attends to.
        grid: Rows and columns of patches.
        patch_hw: (height, width) of a patch in pixels.
        num_prefix: Tokens before the patches (CLS, distillation token, registers).

    Returns:
        (B, H), fp64. A patch that attends to prefix tokens alone is left out; NaN where all do.

    Raises:
        ValueError: The shape does not fit grid and prefix.
    """
    rows, columns = grid
    tokens = num_prefix + rows * columns
    if attention.ndim != 4 or attention.shape[2:] != (tokens, tokens):
        raise ValueError(
            f"`attention` must be (images, heads, {tokens}, {tokens}) for {rows} x {columns} patches after "
            f"{num_prefix} prefix tokens, got {tuple(attention.shape)}"
        )
    between = attention[:, :, num_prefix:, num_prefix:].double()
    distances = patch_distances(grid, patch_hw).to(between)
    mass = between.sum(dim=-1)  # (B, H, rows * columns)
    return ((between * distances).sum(dim=-1) / mass).nanmean(dim=-1)


def patch_distances(grid: tuple[int, int], patch_hw: tuple[float, float]) -> torch.Tensor:
    """(rows * columns, rows * columns), fp64: Euclidean distances between centres of patches, in pixels."""
    row, column = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    centres = torch.stack([row.flatten() * patch_hw[0], column.flatten() * patch_hw[1]], dim=1)
    return (centres[:, None] - centres[None]).norm(dim=-1)


def uniform_attention_distance(grid: tuple[int, int], patch_hw: tuple[float, float]) -> float:
    """The distance of attention that is the same everywhere: the mean over all pairs of patches, in pixels.

    An offset of (y, x) patches occurs (rows - y) (columns - x) times in each direction, so that the mean is
    sum_yx (rows - |y|) (columns - |x|) |(y, x)| / (rows * columns)^2.
    """
    rows, columns = grid
    y, x = np.meshgrid(np.arange(1 - rows, rows), np.arange(1 - columns, columns), indexing="ij")
    times = (rows - np.abs(y)) * (columns - np.abs(x))
    return float((times * np.hypot(y * patch_hw[0], x * patch_hw[1])).sum() / (rows * columns) ** 2)


@dataclass
class AttentionDistance:
    """How far the heads of each layer look.

    Args:
        distances: (layers, heads), mean over images, in pixels.
        deviations: (layers, heads), standard deviation between images, in pixels; 0 for one image.
        images: How many were looked at.
        grid: Rows and columns of patches.
        patch_hw: (height, width) of a patch in pixels.
    """

    distances: np.ndarray
    deviations: np.ndarray
    images: int
    grid: tuple[int, int]
    patch_hw: tuple[float, float]

    @property
    def uniform(self) -> float:
        """What attention that is the same everywhere would have, in pixels: above it a head prefers what is far."""
        return uniform_attention_distance(self.grid, self.patch_hw)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per layer and head (from 0): `layer`, `head`, `distance` and `deviation` in pixels, `of_uniform`."""
        layer, head = np.indices(self.distances.shape)
        values = self.distances.flatten()
        return pd.DataFrame(
            {
                "layer": layer.flatten(),
                "head": head.flatten(),
                "distance": values,
                "deviation": self.deviations.flatten(),
                "of_uniform": values / self.uniform,
            }
        )

    def save(self, path: str | Path, *, theme: str = "light") -> None:
        """Draws a point per head over the layers, and the uniform distance; see `paper_figure` for the arguments."""
        with paper_figure(path, theme=theme) as (figure, colors):
            axes = figure.subplots()
            layers, heads = self.distances.shape
            axes.axhline(self.uniform, color=colors.faint, linestyle="--", linewidth=1, label="uniform attention")
            layer = np.repeat(np.arange(layers), heads)
            style: Any = {"s": 14, "alpha": 0.8, "linewidths": 0}
            axes.scatter(layer, self.distances.flatten(), color=colors.colors[0], label="a head", **style)
            mean = np.nanmean(self.distances, axis=1)
            axes.plot(range(layers), mean, color=colors.colors[1], linewidth=1.5, label="mean of heads")
            axes.set(xlabel="layer", ylabel="mean attention distance (pixels)", ylim=(0, None))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(loc="lower right", fontsize=7)


def attention_distance(model: nn.Module, pixel_values: Any, *, batch_size: int = 8) -> AttentionDistance:
    """How far each head of each layer looks, over all images.

    Args:
        model: A vision transformer, or a detector, whose encoder looks at the features of its backbone.
        pixel_values: See `pixel_batches`; all of one size.
        batch_size: Most images at once.

    Raises:
        ExplanationError: The model has no attention between patches.
        ValueError: There is no image, or a batch is of another size.
    """
    sums: DistanceSums | None = None
    for batch in pixel_batches(pixel_values, batch_size):
        height, width = batch.shape[2:]
        layers = attention_maps(model, batch)
        if sums is None:
            first = next(layers)
            layers = chain([first], layers)
            grid, num_prefix = _tokens(read_architecture(model), (height, width), first.shape[-1])
            sums = DistanceSums(grid, (height / grid[0], width / grid[1]), num_prefix)
            del first
        sums.update(layers)
    assert sums is not None
    return sums.compute()


def _tokens(architecture: Architecture, image_hw: tuple[int, int], tokens: int) -> tuple[tuple[int, int], int]:
    """Rows and columns of what is attended to, and the number of tokens before it."""
    if architecture.kind == "vit":
        return architecture.grid(image_hw), len(architecture.prefix)
    return architecture.feature_grid(image_hw, tokens), 0


class DistanceSums:
    """Sums up the distances of any number of images without keeping them.

    Args:
        grid: Rows and columns of patches.
        patch_hw: (height, width) of a patch in pixels.
        num_prefix: Tokens before the patches.
    """

    def __init__(self, grid: tuple[int, int], patch_hw: tuple[float, float], num_prefix: int) -> None:
        self.grid, self.patch_hw, self.num_prefix = grid, patch_hw, num_prefix
        self._count = 0
        self._mean = self._squares = torch.empty(0)

    def update(self, layers: Iterable[torch.Tensor]) -> None:
        """Adds a batch: (B, H, N, N) of each layer, first to last; only one of them is held at a time."""
        found = torch.stack(
            [mean_attention_distance(each, self.grid, self.patch_hw, self.num_prefix).cpu() for each in layers], dim=1
        )  # (B, layers, H)
        if not self._count:
            self._mean = self._squares = torch.zeros_like(found[0])
        count, mean = len(found), found.mean(dim=0)
        total, shift = self._count + count, mean - self._mean
        # Chan et al. 1983: sums of squares about the mean, of two parts
        self._squares = self._squares + ((found - mean) ** 2).sum(dim=0) + shift**2 * self._count * count / total
        self._mean = self._mean + shift * count / total
        self._count = total

    def compute(self) -> AttentionDistance:
        """What was found.

        Raises:
            ValueError: Nothing was added.
        """
        if not self._count:
            raise ValueError("no image was looked at: give at least one")
        deviation = (self._squares / max(self._count - 1, 1)).sqrt()
        return AttentionDistance(self._mean.numpy(), deviation.numpy(), self._count, self.grid, self.patch_hw)


__all__ = [
    "AttentionDistance",
    "DistanceSums",
    "attention_distance",
    "mean_attention_distance",
    "patch_distances",
    "uniform_attention_distance",
]
