"""Mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899) on a batch.

Image 2k is mixed with image 2k + 1. As the order of a batch is random, this pairing is as good as any other, and it
does not change when the batch is split among processes or accumulation steps.
"""

import numpy as np
import torch

from ..seeding import derived_generator
from .augmentation_settings import Augmentation


def targets_from_labels(labels: torch.Tensor, num_labels: int, smoothing: float = 0.0) -> torch.Tensor:
    """Class probabilities (B, C), fp32, with label smoothing s.

    Class indices (B,) become 1 - s + s / C for the label and s / C for the other classes. Labels that are (B, C)
    already, 0 to 1 per class, are smoothed towards 1 / 2.
    """
    if labels.ndim == 2:
        return labels.float() * (1 - smoothing) + smoothing / 2
    # `one_hot` reads the largest label back on some devices.
    one_hot = labels.new_zeros(len(labels), num_labels, dtype=torch.float32).scatter_(1, labels[:, None], 1.0)
    return one_hot * (1 - smoothing) + smoothing / num_labels


def mix_batch(
    pixel_values: torch.Tensor, targets: torch.Tensor, settings: Augmentation, *key: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixes a batch by mixup or CutMix, with one mixing weight for the whole batch.

    Args:
        pixel_values: Images (B, C, height, width), B even.
        targets: Class probabilities (B, L).
        settings: Augmentation settings, of which `mixup`, `cutmix`, `mix_probability` and `mix_switch` are used.
        *key: Key of the random draw, such as (seed, step); equal for all parts of one batch.

    Returns:
        Mixed pixels and targets, in the same order: weight * own + (1 - weight) * partner's.

    Raises:
        ValueError: The batch is to be mixed but has an odd number of images.
    """
    generator = derived_generator(*key)
    mixed, use_cutmix, share = _draw(settings, generator)
    if not mixed:
        return pixel_values, targets
    if len(pixel_values) % 2:
        raise ValueError(f"a batch must have an even number of images to be mixed, got {len(pixel_values)}")
    if use_cutmix:
        pixel_values = pixel_values.clone()
        top, bottom, left, right = _box(pixel_values.shape[2:], share, generator)
        window = pixel_values[:, :, top:bottom, left:right]
        pixel_values[:, :, top:bottom, left:right] = _partners(window)
        height, width = pixel_values.shape[2:]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        pixel_values = pixel_values * share + _partners(pixel_values) * (1 - share)
    return pixel_values, targets * share + _partners(targets) * (1 - share)


def _draw(settings: Augmentation, generator: np.random.Generator) -> tuple[bool, bool, float]:
    """Draws whether to mix, whether by CutMix, and the mixing weight of the own image in [0, 1]."""
    if not settings.mixes or generator.random() >= settings.mix_probability:
        return False, False, 1.0
    both = settings.mixup > 0 and settings.cutmix > 0
    use_cutmix = generator.random() < settings.mix_switch if both else settings.cutmix > 0
    alpha = settings.cutmix if use_cutmix else settings.mixup
    return True, use_cutmix, float(generator.beta(alpha, alpha))


def _box(size: torch.Size, share: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws a box (top, bottom, left, right) of 1 - share of the area around a random point, cut at the borders."""
    height, width = size
    side = (1 - share) ** 0.5
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    row, column = int(generator.integers(height)), int(generator.integers(width))
    return (
        max(0, row - half_height), min(height, row + half_height),
        max(0, column - half_width), min(width, column + half_width),
    )  # fmt: skip


def _partners(values: torch.Tensor) -> torch.Tensor:
    """Tensor with its rows 2k and 2k + 1 exchanged."""
    return values.reshape(len(values) // 2, 2, *values.shape[1:]).flip(1).flatten(0, 1)


__all__ = ["mix_batch", "targets_from_labels"]
