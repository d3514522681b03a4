"""Cosine similarity of position embeddings, which shows their spatial structure (Dosovitskiy et al. 2021, fig. 7)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from .embedding_tables import position_table
from .plots import COLOR_MAP, COLUMN, paper_figure, tile


@dataclass
class PositionSimilarity:
    """Cosine similarity of the embeddings of any two positions.

    Args:
        similarity: Cosine similarity (rows, columns, rows, columns), in [-1, 1]; the first two axes are one position,
            the last two the other.
        num_prefix: Number of table rows that belong to prefix tokens and are left out.
    """

    similarity: np.ndarray
    num_prefix: int

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        rows, columns = self.similarity.shape[:2]
        return rows, columns

    def to_dataframe(self) -> pd.DataFrame:
        """Similarities as a data frame, one row per pair of positions.

        The columns are `row`, `column`, `other_row` and `other_column`, each from 0, and `cosine`.
        """
        names = ("row", "column", "other_row", "other_column")
        places = np.indices(self.similarity.shape).reshape(4, -1)
        return pd.DataFrame({**dict(zip(names, places, strict=True)), "cosine": self.similarity.flatten()})

    def save(self, path: str | Path, *, theme: str = "light", most: int = 8) -> None:
        """Plots the similarity to all positions for each of up to `most` x `most` evenly spaced positions.

        Args:
            path: A .png, .pdf or .svg file to write; missing folders are made.
            theme: "light" or "dark".
            most: Most positions per axis; 8 by default.
        """
        rows, columns = (_chosen(count, most) for count in self.grid)
        maps = self.similarity[np.ix_(rows, columns)].reshape(-1, *self.grid)
        gap = max(1, max(self.grid) // 10)
        sheet = tile(maps, len(columns), gap)
        with paper_figure(path, COLUMN, 0.4 + 0.8 * COLUMN * sheet.shape[0] / sheet.shape[1], theme) as (figure, _):
            axes = figure.subplots()
            image = axes.imshow(sheet, cmap=COLOR_MAP, vmin=min(0.0, float(maps.min())), vmax=1, interpolation="none")
            for ticks, chosen, size in (
                (axes.set_xticks, columns, self.grid[1]),
                (axes.set_yticks, rows, self.grid[0]),
            ):
                ticks(
                    [place * (size + gap) + (size - 1) / 2 for place in range(len(chosen))],
                    [str(each) for each in chosen],
                )
            axes.set(xlabel="column of the patch", ylabel="row of the patch")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            figure.colorbar(image, label="cosine similarity", shrink=0.85)


def position_similarity(model: nn.Module) -> PositionSimilarity:
    """Cosine similarity between the position embeddings of all patches.

    Args:
        model: Vision transformer with a table of absolute position embeddings, of this package, transformers, timm or
            torchvision.

    Raises:
        ValueError: The model has no such table, or an embedding is all zeros, as in an untrained model.
    """
    table, num_prefix = position_table(model)
    rows, columns, _ = table.shape
    flat = table.flatten(0, 1).double()
    norms = flat.norm(dim=1)
    if bool((norms == 0).any()):
        place = int((norms == 0).nonzero()[0])
        raise ValueError(
            f"the position embedding of row {place // columns}, column {place % columns} is all zeros and has no "
            f"direction: is {type(model).__name__} untrained?"
        )
    directions = flat / norms[:, None]
    cosines = (directions @ directions.T).clamp(-1, 1)
    return PositionSimilarity(cosines.view(rows, columns, rows, columns).numpy(force=True), num_prefix)


def _chosen(count: int, most: int) -> list[int]:
    """Up to `most` evenly spaced numbers from 0 to `count` - 1, including both ends."""
    return [int(number) for number in torch.linspace(0, count - 1, min(count, most)).round()]


__all__ = ["PositionSimilarity", "position_similarity"]
