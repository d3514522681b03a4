"""Masks of patches, drawn for each image from its own seed, on the host."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ....data.seeding import derived_generator
from ...recipe.pretraining_settings import PretrainingSettings
from ...recipe.recipe import RecipeError


def draw_noise(seeds: Sequence[int], places: int) -> torch.Tensor:
    """Uniform noise in [0, 1) by which the patches of each image are ordered, (B, places) fp32.

    Args:
        seeds: One seed per image.
        places: Number of patches of an image.
    """
    noise = np.empty((len(seeds), places), dtype=np.float32)
    for row, seed in enumerate(seeds):
        derived_generator(seed).random(dtype=np.float32, out=noise[row])
    return torch.from_numpy(noise)


def draw_mask(seeds: Sequence[int], grid: tuple[int, int], hidden: int, unit: int = 1) -> torch.Tensor:
    """Mask of the patches of each image, (B, rows * columns) bool, True on hidden ones; each image has equally many.

    Args:
        seeds: One seed per image.
        grid: Rows and columns of patches, multiples of `unit`.
        hidden: Number of hidden squares of `unit` x `unit` patches per image.
        unit: Patches per side of a square that is hidden as one.
    """
    rows, columns = grid[0] // unit, grid[1] // unit
    chosen = draw_noise(seeds, rows * columns).argsort(dim=1, stable=True)[:, :hidden]
    mask = torch.zeros(len(seeds), rows * columns, dtype=torch.bool).scatter_(1, chosen, True)
    squares = mask.view(-1, rows, columns)
    return squares.repeat_interleave(unit, dim=1).repeat_interleave(unit, dim=2).flatten(1)


def visible_count(settings: PretrainingSettings, grid: tuple[int, int]) -> int:
    """Number of patches of an image that MAE's encoder sees, rounded down as in the paper's code.

    Raises:
        RecipeError: All patches would be hidden, or none.
    """
    patches = grid[0] * grid[1]
    visible = int(patches * (1 - _ratio(settings)))
    _check(settings, patches - visible, patches)
    return visible


def hidden_count(settings: PretrainingSettings, grid: tuple[int, int]) -> int:
    """Number of squares of an image that are hidden, rounded up as in SimMIM's code.

    Raises:
        RecipeError: All patches would be hidden, or the squares do not fill the grid.
    """
    unit, (rows, columns) = settings.mask_unit, grid
    if rows % unit or columns % unit:
        raise RecipeError(
            f"pretraining.mask_unit: must divide the {rows} x {columns} patches of an image evenly, got {unit}"
        )
    squares = rows * columns // unit**2
    hidden = math.ceil(squares * _ratio(settings))
    _check(settings, hidden, squares)
    return hidden


def _ratio(settings: PretrainingSettings) -> float:
    assert settings.masked is not None
    return settings.masked


def _check(settings: PretrainingSettings, hidden: int, places: int) -> None:
    if not 0 < hidden < places:
        raise RecipeError(
            f"pretraining.mask_ratio: must leave some of an image's {places} patches visible and hide some, got "
            f"{settings.masked:g}, which hides {hidden}"
        )


__all__ = ["draw_mask", "draw_noise", "hidden_count", "visible_count"]
