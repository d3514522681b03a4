"""Temperature scaling of a classifier's logits (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2).

The temperature T > 0 minimises the mean negative log-likelihood on held-out images: of softmax(logits / T) where an
image has one label, and of sigmoid(logits / T) for each label where it has any number. As a function of 1 / T it is
convex, so that values and slopes at a few points locate the minimum, and no logits are kept.
"""

import math

import numpy as np
import torch

from ....runtime.exact_sums import rounded

_LARGEST = 20.0  # temperatures from 1/20 to 20 are considered
_POINTS = 41
INVERSES = torch.from_numpy(np.geomspace(1 / _LARGEST, _LARGEST, _POINTS))  # values of 1 / T


class TemperatureSums:
    """Sums over images from which the temperature is fitted; their size does not depend on the number of images.

    Attributes:
        sums: Negative log-likelihood at each of the points, and its derivative with respect to 1 / T; (2, 41), float64.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(2, _POINTS, dtype=torch.float64)

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch: finite logits (B, C) and class indices (B,)."""
        logits = logits.double()
        below = logits - logits.amax(dim=-1, keepdim=True)  # (B, C), at most 0
        own = below.gather(1, labels[:, None])[:, 0]
        for point, inverse in enumerate(INVERSES.tolist()):
            shares = (inverse * below).exp()
            total = shares.sum(dim=-1)
            self.sums[0, point] += rounded(total.log() - inverse * own).sum()
            self.sums[1, point] += rounded((shares * below).sum(dim=-1) / total - own).sum()

    def fitted(self) -> float | None:
        """Temperature with the smallest loss; None if there is none from 1/20 to 20.

        There is none where every image is classified correctly: the loss then falls as long as T does.
        """
        slopes = self.sums[1]
        rising = [point for point in range(1, _POINTS) if slopes[point - 1] <= 0 < slopes[point]]
        if not rising or not bool((slopes[: rising[0]] < 0).any()):
            return None
        low, high, (left, right), (down, up) = self._between(rising[0] - 1)
        step = high - low
        # The derivative of the cubic Hermite polynomial through both points, whose root in [0, 1] is the minimum.
        quadratic = 6 * (left - right) + 3 * step * (down + up)
        linear = -6 * (left - right) - 4 * step * down - 2 * step * up
        roots = np.roots([quadratic, linear, step * down])
        inside = [float(root.real) for root in roots if abs(root.imag) < 1e-9 and 0 <= root.real <= 1]
        place = inside[0] if inside else down / (down - up)
        return 1 / (low + place * step)

    def loss(self, temperature: float, decisions: int) -> float | None:
        """Mean negative log-likelihood at a temperature; None if it lies outside 1/20 to 20 or nothing was counted.

        Args:
            temperature: Number T by which the logits are divided.
            decisions: Number of decisions that were added: one per image, or one per image and label.
        """
        inverse = 1 / temperature
        if decisions == 0 or not float(INVERSES[0]) <= inverse <= float(INVERSES[-1]):
            return None
        point = min(int(torch.searchsorted(INVERSES, inverse, right=True)) - 1, _POINTS - 2)
        low, high, (left, right), (down, up) = self._between(point)
        step, t = high - low, (inverse - low) / (high - low)
        value = (
            (2 * t**3 - 3 * t**2 + 1) * left
            + (t**3 - 2 * t**2 + t) * step * down
            + (3 * t**2 - 2 * t**3) * right
            + (t**3 - t**2) * step * up
        )
        return value / decisions if math.isfinite(value) else None

    def _between(self, point: int) -> tuple[float, float, tuple[float, float], tuple[float, float]]:
        """Two neighbouring values of 1 / T, and the losses and the slopes there."""
        pair = slice(point, point + 2)
        low, high = INVERSES[pair].tolist()
        left, right = self.sums[0, pair].tolist()
        down, up = self.sums[1, pair].tolist()
        return low, high, (left, right), (down, up)


class SigmoidTemperatureSums(TemperatureSums):
    """Sums of a multi-label classifier: one temperature for all its yes-or-no decisions, one per image and label."""

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch: finite logits (B, L) and labels (B, L), each 0 or 1."""
        logits = logits.double()
        towards = torch.where(labels == 1, logits, -logits)  # (B, L), above 0 where the decision is right
        for point, inverse in enumerate(INVERSES.tolist()):
            self.sums[0, point] += rounded(-torch.nn.functional.logsigmoid(inverse * towards)).sum()
            self.sums[1, point] += rounded(-towards * (-inverse * towards).sigmoid()).sum()


__all__ = ["INVERSES", "SigmoidTemperatureSums", "TemperatureSums"]
