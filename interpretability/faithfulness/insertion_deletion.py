"""Insertion, deletion and perturbation: a class's probability while patches are removed or restored in a map's order.

Deletion removes the most relevant patches first; insertion starts from the baseline and restores them first (Petsiuk
et al. 2018, https://arxiv.org/abs/1806.07421). Removing the least relevant patches first gives the images of insertion
in reverse order, so that positive and negative perturbation (Chefer et al. 2021, https://arxiv.org/abs/2012.09838) are
computed from the same forward passes.

Shapes: B images, C channels, N = rows * columns cells, S steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from .protocol import FaithfulnessProtocol

# Probability of each image's class (B,), and whether the model still predicts this class (B,), 0 or 1.
Scores = tuple[torch.Tensor, torch.Tensor]
Scoring = Callable[[torch.Tensor], Scores]

# Measures, and whether higher (1) or lower (-1) values are better.
CURVE_MEASURES = {"deletion": -1, "insertion": 1, "positive_perturbation": -1, "negative_perturbation": 1}


def baseline_images(pixel_values: torch.Tensor, protocol: FaithfulnessProtocol) -> torch.Tensor:
    """Content that replaces removed patches: blurred or mean-coloured images (B, C, height, width)."""
    if protocol.baseline == "mean":
        return pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
    shorter = min(pixel_values.shape[2:])
    sigma = max(protocol.blur * shorter, 0.5)
    radius = min(round(3 * sigma), shorter - 1)  # reflection at the border allows no more
    return transforms.gaussian_blur(pixel_values, [2 * radius + 1] * 2, [sigma] * 2)


def cell_ranks(maps: torch.Tensor, cells: tuple[int, int], seed: int, first: int) -> torch.Tensor:
    """Rank of each cell by relevance, 0 for the most relevant; cells of equal relevance get a random order.

    Args:
        maps: Maps (B, height, width) or (B, rows, columns).
        cells: (rows, columns) of cells.
        seed: Random seed for ties.
        first: Number of the first image in the data set, so that ties do not depend on the batch size.

    Returns:
        Ranks (B, rows, columns), int64.

    Raises:
        ValueError: A map holds values that are not finite.
    """
    if not bool(maps.isfinite().all()):
        raise ValueError("a map of relevance holds values that are not finite")
    pooled = torch.nn.functional.adaptive_avg_pool2d(maps[:, None].float(), cells)[:, 0]
    ranks = torch.empty_like(pooled, dtype=torch.int64)
    for number, values in enumerate(pooled.flatten(1).cpu().numpy()):
        shuffled = np.random.default_rng([seed, first + number]).permutation(len(values))
        order = shuffled[np.argsort(-values[shuffled], kind="stable")]
        rank = np.empty(len(values), dtype=np.int64)
        rank[order] = np.arange(len(values))
        ranks[number] = torch.from_numpy(rank).view(cells)
    return ranks


def over_pixels(cell_values: torch.Tensor, image_hw: tuple[int, int]) -> torch.Tensor:
    """Enlarges cells (B, rows, columns) to pixels (B, height, width): each pixel gets the value of its cell."""
    rows, columns = cell_values.shape[1:]
    row, column = (torch.arange(size) * count // size for size, count in zip(image_hw, (rows, columns), strict=True))
    return cell_values[:, row][:, :, column]


@dataclass(frozen=True)
class Curves:
    """Curves over the share of patches removed (deletion) or restored (insertion), from 0 to 1 in S steps.

    Args:
        deletion: Probability of the class during deletion, (B, S + 1).
        insertion: Probability of the class during insertion, (B, S + 1).
        deletion_kept: 1 where the model predicts the class during deletion, otherwise 0, (B, S + 1).
        insertion_kept: 1 where the model predicts the class during insertion, otherwise 0, (B, S + 1).
    """

    deletion: torch.Tensor
    insertion: torch.Tensor
    deletion_kept: torch.Tensor
    insertion_kept: torch.Tensor

    def measures(self) -> torch.Tensor:
        """Mean heights of the curves, (B, 4), in [0, 1], in the order of `CURVE_MEASURES`.

        Deletion and insertion average the probability from 0 to 100 % of the patches. Positive and negative
        perturbation average whether the class is predicted while 10 to 90 % of the patches are removed, the most or the
        least relevant ones first.
        """
        steps = self.deletion.shape[1] - 1
        inner = slice(steps // 10, steps - steps // 10 + 1)
        return torch.stack(
            [
                mean_height(self.deletion),
                mean_height(self.insertion),
                mean_height(self.deletion_kept[:, inner]),
                mean_height(self.insertion_kept[:, inner]),
            ],
            dim=1,
        )


def mean_height(curve: torch.Tensor) -> torch.Tensor:
    """Area under curves (B, points) by the trapezoid rule, over an axis of length 1: (B,), fp64."""
    return torch.trapezoid(curve.double(), dim=1) / (curve.shape[1] - 1)


def perturbation_curves(
    score: Scoring,
    pixel_values: torch.Tensor,
    baseline: torch.Tensor,
    ranks: torch.Tensor,
    steps: int,
    whole: Scores,
    none: Scores,
) -> Curves:
    """Runs a model on images with more and more patches removed, and with more and more restored.

    Args:
        score: Function from a batch of perturbed images to their scores.
        pixel_values: Normalised images (B, C, height, width).
        baseline: Content that replaces removed patches, (B, C, height, width).
        ranks: Ranks of the cells (B, rows, columns), by `cell_ranks`.
        steps: Number of steps S of a curve.
        whole: Scores of the unchanged images: the start of deletion and the end of insertion.
        none: Scores of the baseline: the end of deletion and the start of insertion.
    """
    count = ranks[0].numel()
    rank = over_pixels(ranks, (pixel_values.shape[2], pixel_values.shape[3])).to(pixel_values.device)[:, None]
    deleted, inserted = [whole], [none]
    for step in range(1, steps):
        first = rank < round(count * step / steps)
        deleted.append(score(torch.where(first, baseline, pixel_values)))
        inserted.append(score(torch.where(first, pixel_values, baseline)))
    deleted.append(none)
    inserted.append(whole)
    return Curves(_points(deleted, 0), _points(inserted, 0), _points(deleted, 1), _points(inserted, 1))


def _points(scores: list[Scores], part: int) -> torch.Tensor:
    return torch.stack([each[part] for each in scores], dim=1)


__all__ = [
    "CURVE_MEASURES",
    "Curves",
    "Scores",
    "Scoring",
    "baseline_images",
    "cell_ranks",
    "mean_height",
    "over_pixels",
    "perturbation_curves",
]
