"""How a cost grows with the image, and where one overtakes another."""

from collections.abc import Sequence

import numpy as np


def growth_exponent(pixels: Sequence[float] | np.ndarray, costs: np.ndarray) -> np.ndarray:
    """k of cost ~ pixels^k, by least squares on logarithms: 1 is linear in the pixels, 2 quadratic.

    Args:
        pixels: (n,), height x width of each measurement.
        costs: (..., n), above 0.

    Returns:
        (...).
    """
    x = np.log(np.asarray(pixels, dtype=np.float64))
    y = np.log(np.asarray(costs, dtype=np.float64))
    if len(x) < 2 or np.ptp(x) == 0:
        raise ValueError(f"a growth needs two resolutions or more, got {list(pixels)} pixels")
    centred = x - x.mean()
    return np.asarray((y * centred).sum(-1) / (centred**2).sum())


def crossing(sides: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float | None:
    """The smallest side at which the cheaper of two costs changes, by interpolation of logarithms; None if it does not.

    Args:
        sides: (n,), growing.
        first: (n,), cost of one.
        second: (n,), cost of the other.
    """
    gap = np.log(np.asarray(first, dtype=np.float64)) - np.log(np.asarray(second, dtype=np.float64))
    x = np.log(np.asarray(sides, dtype=np.float64))
    for place in range(len(gap) - 1):
        if gap[place] == 0:
            return float(sides[place])
        if gap[place] * gap[place + 1] < 0:
            part = gap[place] / (gap[place] - gap[place + 1])
            return float(np.exp(x[place] + part * (x[place + 1] - x[place])))
    return float(sides[-1]) if len(gap) and gap[-1] == 0 else None


def quadratic_crossover(
    pixels: tuple[float, float], attention: tuple[float, float], linear: tuple[float, float]
) -> float | None:
    """Pixels (height x width) from which on attention costs more than the linear layers; None if it never does.

    Args:
        pixels: Of two images.
        attention: Multiply-accumulates of tokens with tokens in each.
        linear: Of tokens with weights in each.
    """
    if not min(attention) > 0:
        return None
    if growth_exponent(pixels, np.array(attention)) < 1.9:  # attends within windows only: linear in the pixels
        return None
    per_square = attention[1] / pixels[1] ** 2
    per_pixel = (linear[1] - linear[0]) / (pixels[1] - pixels[0])
    return per_pixel / per_square


__all__ = ["crossing", "growth_exponent", "quadratic_crossover"]
