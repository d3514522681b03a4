"""Growth of a cost with the image size, and the size at which one cost overtakes another."""

from collections.abc import Sequence

import numpy as np


def growth_exponent(pixels: Sequence[float] | np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Fits k of cost ~ pixels^k by least squares on logarithms: 1 is linear in the pixels, 2 quadratic.

    Args:
        pixels: Number of pixels (height x width) of each measurement, (n,).
        costs: Costs above 0, (..., n).

    Returns:
        Exponents k, (...).
    """
    x = np.log(np.asarray(pixels, dtype=np.float64))
    y = np.log(np.asarray(costs, dtype=np.float64))
    if len(x) < 2 or np.ptp(x) == 0:
        raise ValueError(f"a growth needs two resolutions or more, got {list(pixels)} pixels")
    centred = x - x.mean()
    return np.asarray((y * centred).sum(-1) / (centred**2).sum())


def crossing(sides: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Interpolates, on logarithms, the smallest side at which the cheaper of two costs changes; None if it does not.

    Args:
        sides: Sides of the images, growing, (n,).
        first: Cost of the first contestant at each side, (n,).
        second: Cost of the second contestant at each side, (n,).
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
    """Returns the pixels (height x width) above which attention costs more than linear layers; None if it never does.

    Args:
        pixels: Number of pixels of two images.
        attention: Multiply-accumulates of tokens with tokens for each image.
        linear: Multiply-accumulates of tokens with weights for each image.
    """
    if not min(attention) > 0:
        return None
    if growth_exponent(pixels, np.array(attention)) < 1.9:  # attention within windows only: linear in the pixels
        return None
    per_square = attention[1] / pixels[1] ** 2
    per_pixel = (linear[1] - linear[0]) / (pixels[1] - pixels[0])
    return per_pixel / per_square


__all__ = ["crossing", "growth_exponent", "quadratic_crossover"]
