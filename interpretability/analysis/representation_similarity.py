"""Similarity of the representations of two layers: linear CKA (Kornblith et al. 2019, https://arxiv.org/abs/1905.00414).

CKA is computed batch by batch from the unbiased estimate of HSIC (Song et al. 2012), as in Nguyen et al. 2021
(https://arxiv.org/abs/2010.15327, eq. 3): CKA = sum_b HSIC(K_b, L_b) / sqrt(sum_b HSIC(K_b, K_b) sum_b HSIC(L_b, L_b)).
Apart from noise, the result therefore does not depend on the batch size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from .layer_features import TokenReduction, pixel_batches, short_names, visit_layers
from .plots import COLOR_MAP, paper_figure

FEWEST = 4  # images per batch; the unbiased estimate divides by n - 3


def centred_gram(features: torch.Tensor) -> torch.Tensor:
    """U-centred Gram matrix (Szekely and Rizzo 2014) of features: (n, ...) to (n, n), fp64, with 0 on the diagonal.

    HSIC of two sets of features is the sum of the elementwise product of their matrices, divided by n (n - 3).

    Raises:
        ValueError: There are fewer than 4 images.
    """
    count = len(features)
    if count < FEWEST:
        raise ValueError(f"the unbiased estimate of CKA needs batches of at least {FEWEST} images, got {count}")
    flat = features.flatten(1).double()
    flat = flat - flat.mean(dim=0)  # only reduces rounding errors
    gram = (flat @ flat.T).fill_diagonal_(0)
    rows = gram.sum(dim=1) / (count - 2)
    return (gram - rows[:, None] - rows[None] + rows.sum() / (count - 1)).fill_diagonal_(0)


class CKASums:
    """CKA over any number of batches, in the memory of one: only sums over batches are kept."""

    def __init__(self) -> None:
        self._between: torch.Tensor | None = None
        self._first = self._second = torch.empty(0)

    def update(self, first: Iterable[torch.Tensor], second: Iterable[torch.Tensor] | None = None) -> None:
        """Adds a batch of n images, at least 4.

        Args:
            first: Features (n, ...) of each layer of the first network; `update_grams` takes Gram matrices instead.
            second: Features (n, ...) of each layer of the second network; None compares the first with itself.
        """
        grams = [centred_gram(features) for features in first]
        self.update_grams(grams, grams if second is None else [centred_gram(features) for features in second])

    def update_grams(self, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> None:
        """Adds a batch of n images, from the U-centred Gram matrices of both networks.

        Args:
            first: Gram matrix (n, n) of each layer of the first network, by `centred_gram`.
            second: Gram matrix (n, n) of each layer of the second network, for the same images.

        Raises:
            ValueError: The two networks saw different numbers of images.
        """
        left, right = torch.stack(list(first)).flatten(1), torch.stack(list(second)).flatten(1)  # (layers, n * n)
        if left.shape[1] != right.shape[1]:
            counts = len(first[0]), len(second[0])
            raise ValueError(f"both networks must see the same images, got {counts[0]} and {counts[1]} of them")
        # the products are n (n - 3) HSIC; divided by n - 3, each batch weighs as much as its number of images
        weight = 1 / (len(first[0]) - FEWEST + 1)
        between, own, other = weight * left @ right.T, weight * (left**2).sum(1), weight * (right**2).sum(1)
        if self._between is None:
            self._between, self._first, self._second = between, own, other
        else:
            self._between, self._first, self._second = self._between + between, self._first + own, self._second + other

    def compute(self) -> np.ndarray:
        """CKA (layers of the first, layers of the second); NaN for a layer with the same output for all images.

        The estimate is unbiased, so that unrelated layers can have values slightly below 0.

        Raises:
            ValueError: No batch was added.
        """
        if self._between is None:
            raise ValueError("no batch was added: give at least one")
        scale = (self._first[:, None] * self._second[None]).sqrt()
        return torch.where(scale > 0, self._between / scale, torch.nan).numpy(force=True)


@dataclass
class LayerSimilarity:
    """CKA between the layers of one or two networks.

    Args:
        values: CKA (layers, other layers): 1 for features that are equal up to rotation and scale, about 0 for
            unrelated ones.
        names: Names of the layers.
        other_names: Names of the second network's layers; the same as `names` if there is only one network.
        titles: Names of the two networks, for the axes.
        images: Number of images.
    """

    values: np.ndarray
    names: list[str]
    other_names: list[str]
    titles: tuple[str, str]
    images: int

    def to_dataframe(self) -> pd.DataFrame:
        """CKA, one row per pair of layers: `layer`, `other_layer` (names) and `cka`."""
        first, second = np.indices(self.values.shape)
        return pd.DataFrame(
            {
                "layer": [self.names[number] for number in first.flatten()],
                "other_layer": [self.other_names[number] for number in second.flatten()],
                "cka": self.values.flatten(),
            }
        )

    def save(self, path: str | Path, *, theme: str = "light") -> None:
        """Plots the matrix, with the first layers at the lower left.

        Args:
            path: A .png, .pdf or .svg file to write; missing folders are made.
            theme: "light" or "dark".
        """
        with paper_figure(path, 3.4, 2.9, theme) as (figure, _):
            axes = figure.subplots()
            image = axes.imshow(self.values, cmap=COLOR_MAP, vmin=0, vmax=1, origin="lower")
            for ticks, names in ((axes.set_yticks, self.names), (axes.set_xticks, self.other_names)):
                step = -(-len(names) // 14)
                ticks(range(0, len(names), step), short_names(names)[::step], fontsize=6)
            axes.set(ylabel=f"layer of {self.titles[0]}", xlabel=f"layer of {self.titles[1]}")
            figure.colorbar(image, label="linear CKA")


def cka(
    model: nn.Module,
    pixel_values: Any,
    other: nn.Module | None = None,
    *,
    other_pixel_values: Any = None,
    tokens: str = "all",
    layers: Sequence[str] | None = None,
    other_layers: Sequence[str] | None = None,
    titles: tuple[str, str] | None = None,
    batch_size: int = 32,
) -> LayerSimilarity:
    """CKA between the layers of a model, or between those of two models.

    Args:
        model: Any vision transformer or CNN.
        pixel_values: Normalised images (images, C, height, width) or batches of them (see `pixel_batches`), at least 4
            per batch.
        other: Second model; None compares the first with itself.
        other_pixel_values: Same images in the same batches, preprocessed for the second model; None uses
            `pixel_values`.
        tokens: "all" compares whole outputs, "cls" or "mean" one vector per image; see `TokenReduction`.
        layers: Names of the first model's modules; None uses all layers and the classifier's input.
        other_layers: Names of the second model's modules; None uses all layers and the classifier's input.
        titles: Names of the two models, for the axes of the plot; None uses default names.
        batch_size: Most images per forward pass; 32 by default.

    Raises:
        ValueError: A batch has fewer than 4 images, or `other_pixel_values` or `other_layers` is given without `other`.
    """
    if other is None and (other_pixel_values is not None or other_layers is not None):
        raise ValueError("`other_pixel_values` and `other_layers` need `other`, the model that they are for")
    sums, images, names, other_names = CKASums(), 0, [], []
    batches = pixel_batches(pixel_values, batch_size)
    if other_pixel_values is None:
        pairs: Any = ((batch, batch) for batch in batches)
    else:
        pairs = zip(batches, pixel_batches(other_pixel_values, batch_size), strict=True)
    for batch, other_batch in pairs:
        grams = _layer_grams(model, batch, tokens, layers)
        other_grams = grams if other is None else _layer_grams(other, other_batch, tokens, other_layers)
        sums.update_grams(list(grams.values()), list(other_grams.values()))
        images, names, other_names = images + len(batch), list(grams), list(other_grams)
    if titles is None:
        titles = ("the model",) * 2 if other is None else ("the model", "the other model")
    return LayerSimilarity(sums.compute(), names, other_names, titles, images)


def _layer_grams(
    model: nn.Module, batch: torch.Tensor, tokens: str, layers: Sequence[str] | None
) -> dict[str, torch.Tensor]:
    reduce = TokenReduction(model, tokens)
    grams: dict[str, torch.Tensor] = {}

    def visit(name: str, output: torch.Tensor) -> None:
        grams[name] = centred_gram(reduce(output)).cpu()

    visit_layers(model, batch, visit, layers)
    return grams


__all__ = ["CKASums", "LayerSimilarity", "centred_gram", "cka"]
