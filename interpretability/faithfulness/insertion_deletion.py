"""What becomes of a class's probability when patches are taken away or put back, in the order of a map.

Deletion removes the most relevant patches first, insertion starts from the baseline and puts them back first (Petsiuk
et al. 2018, https://arxiv.org/abs/1806.07421). Removing the least relevant ones first gives the pictures of insertion
in the opposite order; so positive and negative perturbation (Chefer et al. 2021, https://arxiv.org/abs/2012.09838) are
read from the same passes.

Shapes: B images, C channels, N = rows * columns cells, S steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from .protocol import FaithfulnessProtocol

# Probability of each image's class (B,), and whether the model would still decide for it (B,), 0 or 1.
Scores = tuple[torch.Tensor, torch.Tensor]
Scoring = Callable[[torch.Tensor], Scores]

# Measures, and whether more (1) or less (-1) of them is better.
CURVE_MEASURES = {"deletion": -1, "insertion": 1, "positive_perturbation": -1, "negative_perturbation": 1}


def baseline_images(pixel_values: torch.Tensor, protocol: FaithfulnessProtocol) -> torch.Tensor:
    """What images become where patches are removed: (B, C, height, width) likewise."""
    if protocol.baseline == "mean":
        return pixel_values.mean(dim=(2, 3), keepdim=True).expand_as(pixel_values)
    shorter = min(pixel_values.shape[2:])
    sigma = max(protocol.blur * shorter, 0.5)
    radius = min(round(3 * sigma), shorter - 1)  # reflected at the border
    return transforms.gaussian_blur(pixel_values, [2 * radius + 1] * 2, [sigma] * 2)


def cell_ranks(maps: torch.Tensor, cells: tuple[int, int], seed: int, first: int) -> torch.Tensor:
    """The rank of each cell, 0 for the most relevant; cells of equal relevance in random order.

    Args:
        maps: (B, height, width) or (B, rows, columns).
        cells: Rows and columns.
        seed: Of ties.
        first: The number of the first image, so that ties do not depend on how images are batched.

    Returns:
        (B, rows, columns), int64.

    Raises:
        ValueError: A value that is not finite.
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
    """(B, rows, columns) to (B, height, width): each pixel has the value of its cell."""
    rows, columns = cell_values.shape[1:]
    row, column = (torch.arange(size) * count // size for size, count in zip(image_hw, (rows, columns), strict=True))
    return cell_values[:, row][:, :, column]


@dataclass(frozen=True)
class Curves:
    """Over the part of patches that was removed (deletion) or put back (insertion), 0 to 1 in S steps.

    Args:
        deletion: (B, S + 1), probability of the class.
        insertion: (B, S + 1), likewise.
        deletion_kept: (B, S + 1), 1 where the model still decides for the class.
        insertion_kept: (B, S + 1), likewise.
    """

    deletion: torch.Tensor
    insertion: torch.Tensor
    deletion_kept: torch.Tensor
    insertion_kept: torch.Tensor

    def measures(self) -> torch.Tensor:
        """(B, 4) in the order of `CURVE_MEASURES`, each the mean height of a curve, in [0, 1].

        Deletion and insertion are of the probability from 0 to 100 %; the perturbations are of the decision while 10 to
        90 % are removed, the most or the least relevant first.
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
    """The area under (B, points) by the trapezoid rule, over an axis of length 1."""
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
    """Runs a model on images with ever more patches removed, and with ever more put back.

    Args:
        score: Of a batch of perturbed images.
        pixel_values: (B, C, height, width).
        baseline: What stands where a patch is removed, of the same shape.
        ranks: (B, rows, columns), of `cell_ranks`.
        steps: S.
        whole: Scores of the images themselves, both curves' one end.
        none: Scores of the baseline, their other end.
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
