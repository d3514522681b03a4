"""Filters of a network's patch projection or first convolution, and their principal components.

The plot follows the left part of fig. 7 of Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from .embedding_tables import first_kernel
from .plots import PAGE, paper_figure, tile


@dataclass
class PatchFilters:
    """Filters over pixels and their principal components.

    Args:
        filters: Weights of the filters, (D, C, height, width).
        components: Principal components (K, C, height, width), orthonormal, in order of decreasing share, with
            K = min(D - 1, C * height * width). The largest weight of each is positive, since the sign is arbitrary.
        shares: Share of the filters' variance that each component explains, (K,); the shares sum to 1.
    """

    filters: np.ndarray
    components: np.ndarray
    shares: np.ndarray

    @property
    def effective_rank(self) -> float:
        """Number of directions over which the filters spread: exp of the shares' entropy (Roy and Vetterli 2007)."""
        found = self.shares[self.shares > 0]
        return float(np.exp(-(found * np.log(found)).sum()))

    def to_dataframe(self) -> pd.DataFrame:
        """Variance by component, one row each: `component` (from 0), `share` and `cumulative_share`."""
        numbers = np.arange(len(self.shares))
        return pd.DataFrame({"component": numbers, "share": self.shares, "cumulative_share": self.shares.cumsum()})

    def save(self, path: str | Path, *, theme: str = "light", count: int = 28, columns: int = 7) -> None:
        """Plots the first components as colour images, each scaled to its own range about grey, beside the shares.

        Filters without exactly three channels are drawn in grey, as the mean over channels.

        Args:
            path: A .png, .pdf or .svg file to write; missing folders are made.
            theme: "light" or "dark".
            count: Most components to draw; 28 by default.
            columns: Components per row; 7 by default.
        """
        shown = self.components[:count]
        if shown.shape[1] != 3:
            shown = shown.mean(axis=1, keepdims=True).repeat(3, axis=1)
        reach = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
        pictures = (0.5 + shown / np.where(reach == 0, 1, 2 * reach)).transpose(0, 2, 3, 1)
        columns = min(columns, len(pictures))
        sheet = tile(pictures, columns)
        with paper_figure(path, PAGE, 2.8, theme) as (figure, colors):
            left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
            opaque = ~np.isnan(sheet[..., :1])
            left.imshow(np.concatenate([np.nan_to_num(sheet), opaque], axis=-1), interpolation="nearest")
            left.set(xlabel=f"components 1 to {len(pictures)}, row by row", xticks=[], yticks=[])
            left.spines[:].set_visible(False)
            numbers = np.arange(1, len(self.shares) + 1)
            right.plot(numbers, 100 * self.shares.cumsum(), color=colors.colors[0], linewidth=1.5)
            right.axvline(len(pictures), color=colors.faint, linestyle="--", linewidth=1)
            right.annotate(
                "drawn on the left",
                (len(pictures), 3),
                (3, 0),
                textcoords="offset points",
                color=colors.faint,
                fontsize=7,
            )
            right.set(xlabel="components", ylabel="variance of the filters (%)", xscale="log", ylim=(0, 102))


def patch_filters(model: nn.Module) -> PatchFilters:
    """Filters that a model applies to pixels, and their principal components.

    Args:
        model: Any vision transformer or CNN; if it has several stems, the first is used.

    Raises:
        ValueError: The model has no filters over pixels, or only one.
    """
    filters = first_kernel(model)[0].double().numpy(force=True)
    if len(filters) < 2:
        raise ValueError(f"{type(model).__name__} has one filter over pixels: its principal components mean nothing")
    flat = filters.reshape(len(filters), -1)
    _, spread, directions = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    count = min(len(filters) - 1, flat.shape[1])  # centring removes one dimension
    directions, variances = directions[:count], spread[:count] ** 2
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(count), largest] < 0, -1.0, 1.0)
    total = variances.sum()
    shares = variances / total if total else np.full(count, 1 / count)
    return PatchFilters(filters, (directions * signs[:, None]).reshape(count, *filters.shape[1:]), shares)


__all__ = ["PatchFilters", "patch_filters"]
