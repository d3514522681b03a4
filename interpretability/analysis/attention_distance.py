"""Mean attention distance of each layer and head (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, fig. 7).

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

    For patch i the distance is sum_j A_ij |x_i - x_j| / sum_j A_ij over patches j; the result is the mean over i.
    Prefix tokens are thus left out as queries and as keys, and the attention that a patch pays to them does not lower
    the distance.

    Args:
        attention: Attention weights (B, H, N, N), at least 0; row i holds the weights of query token i.
        grid: (rows, columns) of patches.
        patch_hw: (height, width) of a patch in pixels.
        num_prefix: Number of tokens before the patches (CLS, distillation token, registers); 1 by default.

    Returns:
        Mean distance (B, H) in pixels, fp64. Patches that attend to prefix tokens only are left out; NaN if all do.

    Raises:
        ValueError: The shape of `attention` does not fit `grid` and `num_prefix`.
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
    """Euclidean distances between the centres of patches, in pixels: (rows * columns, rows * columns), fp64."""
    row, column = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    centres = torch.stack([row.flatten() * patch_hw[0], column.flatten() * patch_hw[1]], dim=1)
    return (centres[:, None] - centres[None]).norm(dim=-1)


def uniform_attention_distance(grid: tuple[int, int], patch_hw: tuple[float, float]) -> float:
    """Attention distance of uniform attention: the mean distance over all pairs of patches, in pixels.

    An offset of (y, x) patches occurs (rows - y) (columns - x) times in each direction, so that the mean is
    sum_yx (rows - |y|) (columns - |x|) |(y, x)| / (rows * columns)^2.
    """
    rows, columns = grid
    y, x = np.meshgrid(np.arange(1 - rows, rows), np.arange(1 - columns, columns), indexing="ij")
    times = (rows - np.abs(y)) * (columns - np.abs(x))
    return float((times * np.hypot(y * patch_hw[0], x * patch_hw[1])).sum() / (rows * columns) ** 2)


@dataclass
class AttentionDistance:
    """Mean attention distance of the heads of each layer.

    Args:
        distances: Mean distance over images, (layers, heads), in pixels.
        deviations: Standard deviation between images, (layers, heads), in pixels; 0 for one image.
        images: Number of images.
        grid: (rows, columns) of patches.
        patch_hw: (height, width) of a patch in pixels.
    """

    distances: np.ndarray
    deviations: np.ndarray
    images: int
    grid: tuple[int, int]
    patch_hw: tuple[float, float]

    @property
    def uniform(self) -> float:
        """Distance of uniform attention, in pixels; a head above it prefers distant patches."""
        return uniform_attention_distance(self.grid, self.patch_hw)

    def to_dataframe(self) -> pd.DataFrame:
        """Distances as a data frame, one row per layer and head.

        The columns are `layer` and `head` (from 0), `distance` and `deviation` in pixels, and `of_uniform`, the
        distance relative to that of uniform attention.
        """
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
        """Plots the distance of each head over the layers, with the uniform distance.

        Args:
            path: A .png, .pdf or .svg file to write; missing folders are made.
            theme: "light" or "dark".
        """
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
    """Mean attention distance of each head of each layer, over all images.

    Args:
        model: Vision transformer, or a detector, whose encoder attends to the features of its backbone.
        pixel_values: Normalised images (images, C, height, width) or batches of them (see `pixel_batches`), all of one
            size.
        batch_size: Most images per forward pass; 8 by default.

    Raises:
        ExplanationError: The model has no attention between patches.
        ValueError: There is no image, or the images differ in size.
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
    """(rows, columns) of the tokens that are attended to, and the number of prefix tokens."""
    if architecture.kind == "vit":
        return architecture.grid(image_hw), len(architecture.prefix)
    return architecture.feature_grid(image_hw, tokens), 0


class DistanceSums:
    """Running mean and deviation of the attention distance over any number of images, which are not kept.

    Args:
        grid: (rows, columns) of patches.
        patch_hw: (height, width) of a patch in pixels.
        num_prefix: Number of tokens before the patches.
    """

    def __init__(self, grid: tuple[int, int], patch_hw: tuple[float, float], num_prefix: int) -> None:
        self.grid, self.patch_hw, self.num_prefix = grid, patch_hw, num_prefix
        self._count = 0
        self._mean = self._squares = torch.empty(0)

    def update(self, layers: Iterable[torch.Tensor]) -> None:
        """Adds a batch of images: attention (B, H, N, N) of each layer, first to last, held one layer at a time."""
        found = torch.stack(
            [mean_attention_distance(each, self.grid, self.patch_hw, self.num_prefix).cpu() for each in layers], dim=1
        )  # (B, layers, H)
        if not self._count:
            self._mean = self._squares = torch.zeros_like(found[0])
        count, mean = len(found), found.mean(dim=0)
        total, shift = self._count + count, mean - self._mean
        # Chan et al. 1983: combining the sums of squared deviations of two samples
        self._squares = self._squares + ((found - mean) ** 2).sum(dim=0) + shift**2 * self._count * count / total
        self._mean = self._mean + shift * count / total
        self._count = total

    def compute(self) -> AttentionDistance:
        """Mean and standard deviation over all images added.

        Raises:
            ValueError: No image was added.
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
