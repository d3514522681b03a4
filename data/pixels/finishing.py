"""Last steps from uint8 to a model's input, made for whole batches on the model's device.

The loading processes decode, cut and resize in uint8, a quarter of the bytes of fp32, and draw the parameters of what
is left: flips, colours, erasing. The parameters travel as numbers on the host, so that no step reads from the device.
Each step computes an image from that image and its own numbers alone, and every sum is exact. The pixels therefore
depend neither on the rest of the batch nor on the number of threads, and are the same on a CPU and on a GPU, but for
the last bit of the noise that erases.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import torch

BRIGHTNESS, CONTRAST, SATURATION = range(3)
ORDERS = np.array(list(permutations((BRIGHTNESS, CONTRAST, SATURATION))))  # (6, 3)
_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in luma, ITU-R BT.601
_MASK = 0xFFFFFFFF


class Draws(NamedTuple):
    """Parameters of an image's last steps; the defaults change nothing.

    Args:
        horizontal_flip: Whether to exchange left and right.
        vertical_flip: Whether to exchange top and bottom.
        brightness: Factor of all levels.
        contrast: Factor of the distance from the image's mean luma.
        saturation: Factor of the distance from each pixel's own luma.
        order: Row of `ORDERS`, in which the three are applied.
        top: First row of the erased rectangle.
        left: First column of the erased rectangle.
        height: Number of erased rows; 0 erases nothing.
        width: Number of erased columns.
        noise: Seed of the noise that fills the rectangle, below 2^53.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    order: int = 0
    top: int = 0
    left: int = 0
    height: int = 0
    width: int = 0
    noise: int = 0

    def numbers(self) -> torch.Tensor:
        """All parameters as float64, (11,), which holds each of them exactly."""
        return torch.tensor(self, dtype=torch.float64)


def draw_jitter(strength: float, generator: np.random.Generator) -> dict[str, Any]:
    """Draws the fields of `Draws` that change colours, as torchvision's `ColorJitter` draws them.

    Args:
        strength: Largest change of each factor from 1; factors are at least 0. With 0 nothing is drawn.
        generator: Source of the draws.
    """
    if not strength:
        return {}
    names = ("brightness", "contrast", "saturation")
    factors = generator.uniform(max(0.0, 1 - strength), 1 + strength, len(names)).tolist()
    return {"order": int(generator.integers(len(ORDERS))), **dict(zip(names, factors, strict=True))}


class Finish:
    """Last steps of a batch: flips, colours, normalisation, erasing.

    Args:
        mean: Mean of each channel that is subtracted, on the scale [0, 1].
        std: Standard deviation of each channel that is divided by, on the scale [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        # scaled as transformers' image processors do, so that evaluation pixels are the same bits
        self.mean, self.std = (torch.tensor(values) * (1.0 / (1 / 255)) for values in (list(mean), list(std)))

    def __call__(self, batch: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Batch with `pixel_values` finished on a device, fp32, and without `draws`; all else stays as it is.

        Args:
            batch: `pixel_values` (B, C, H, W), which are finished if they are uint8, and else only moved; `draws`
                (B, 11) on the host, as `Draws.numbers` gives them, where anything was drawn; `pixel_mask` (B, H, W),
                1 on the images, where they are padded at the right and bottom.
            device: Device to finish them on.
        """
        rest = {name: value for name, value in batch.items() if name != "draws"}
        levels = batch["pixel_values"].to(device, non_blocking=True)
        if levels.dtype != torch.uint8:
            return {**rest, "pixel_values": levels}
        draws = batch["draws"].numpy() if "draws" in batch else None
        extents = extents_of(batch["pixel_mask"]) if "pixel_mask" in batch else None
        mean, std = (values.to(device, non_blocking=True)[:, None, None] for values in (self.mean, self.std))
        if levels.device.type != "cpu":
            return {**rest, "pixel_values": finish_together(levels, draws, extents, mean, std)}
        # one image after the other: each stays in the processor's cache through all steps
        pixels = torch.empty(levels.shape, dtype=torch.float32)
        for number in range(len(levels)):
            height, width = levels.shape[-2:] if extents is None else extents[number].tolist()
            one = slice(number, number + 1)
            if extents is not None:
                pixels[one] = 0
            pixels[one, :, :height, :width] = finish_together(
                levels[one, :, :height, :width], None if draws is None else draws[one], None, mean, std
            )
        return {**rest, "pixel_values": pixels}


def extents_of(mask: torch.Tensor) -> np.ndarray | None:
    """Heights and widths (B, 2) of the images in a padded batch; None if none is padded.

    Args:
        mask: Whether a pixel belongs to the image, (B, H, W), 1 at its top left part and 0 elsewhere; on the host.
    """
    extents = torch.stack([mask[:, :, 0].sum(1), mask[:, 0].sum(1)], dim=1).numpy()
    return None if (extents == mask.shape[1:]).all() else extents


def finish_together(
    levels: torch.Tensor, draws: np.ndarray | None, extents: np.ndarray | None, mean: torch.Tensor, std: torch.Tensor
) -> torch.Tensor:
    """Finishes all images of a batch at once, as is fastest on a GPU.

    Args:
        levels: Pixels (B, C, H, W), uint8.
        draws: Parameters (B, 11), as `Draws.numbers` gives them, on the host; None changes nothing.
        extents: Heights and widths (B, 2) of images that are padded at the right and bottom, on the host; None if none
            is padded.
        mean: Mean of each channel that is subtracted, (C, 1, 1), in levels.
        std: Standard deviation of each channel that is divided by, (C, 1, 1), in levels.

    Returns:
        Finished pixels (B, C, H, W), fp32; 0 on padding.
    """
    if draws is not None:
        levels = _flipped(levels, draws, extents)
    pixels = levels.to(torch.float32)
    mask = None if extents is None else _inside(extents, pixels)
    if draws is not None:
        _jitter(pixels, draws, mask)
    pixels.sub_(mean).div_(std)
    if draws is not None:
        pixels = _erased(pixels, draws)
    return pixels if mask is None else pixels.masked_fill_(~mask, 0.0)


def _column(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """One number per image, (B, 1, 1, 1), on a device."""
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(-1, 1, 1, 1).to(device, non_blocking=True)


def _inside(extents: np.ndarray, pixels: torch.Tensor) -> torch.Tensor:
    """Mask of a padded batch, (B, 1, H, W) bool on the device of the pixels: True on the images, False on padding."""
    rows, columns = (torch.arange(side, device=pixels.device) for side in pixels.shape[-2:])
    heights, widths = (_column(extents[:, axis], pixels.device) for axis in (0, 1))
    return (rows[:, None] < heights) & (columns < widths)


def _flipped(levels: torch.Tensor, draws: np.ndarray, extents: np.ndarray | None) -> torch.Tensor:
    for field, axis in (("horizontal_flip", -1), ("vertical_flip", -2)):
        wanted = draws[:, Draws._fields.index(field)] > 0
        if extents is not None and wanted.any():
            levels = _flipped_within(levels, wanted, extents[:, axis], axis)
        elif wanted.all():
            levels = levels.flip(axis)
        elif wanted.any():
            levels = torch.where(_column(wanted, levels.device), levels.flip(axis), levels)
    return levels


def _flipped_within(levels: torch.Tensor, wanted: np.ndarray, sizes: np.ndarray, axis: int) -> torch.Tensor:
    """Flips the wanted images of a padded batch along an axis, each within its own size; the padding stays in place."""
    places = np.arange(levels.shape[axis])
    flipped = np.where(wanted[:, None] & (places < sizes[:, None]), sizes[:, None] - 1 - places, places)
    index = torch.from_numpy(flipped).unsqueeze(1).unsqueeze(-2 if axis == -1 else -1)  # (B, 1, 1, W) or (B, 1, H, 1)
    return levels.gather(axis, index.to(levels.device, non_blocking=True).expand(levels.shape))


def _jitter(pixels: torch.Tensor, draws: np.ndarray, mask: torch.Tensor | None) -> None:
    """Changes brightness, contrast and saturation in place, each image in its own order, on levels from 0 to 255.

    Each is a blend of the image with black, with its mean luma, or with its own luma, cut to 0 to 255.
    """
    first = Draws._fields.index("brightness")
    factors = draws[:, first : first + 3].astype(np.float32)
    orders = ORDERS[draws[:, Draws._fields.index("order")].astype(int)]
    if (factors == 1).all():
        return
    for kinds in orders.T:
        factor = np.take_along_axis(factors, kinds[:, None], axis=1)[:, 0]
        other = _blended_with(pixels, kinds, mask)
        pixels.mul_(_column(factor, pixels.device))
        if other is not None:
            share = np.where(kinds == BRIGHTNESS, np.float32(0), np.float32(1) - factor)
            pixels.add_(other * _column(share, pixels.device))
        pixels.clamp_(0, 255)


def _blended_with(pixels: torch.Tensor, kinds: np.ndarray, mask: torch.Tensor | None) -> torch.Tensor | None:
    """What contrast and saturation blend the images with, (B, 1, H, W) or (B, 1, 1, 1); None for brightness alone."""
    present = set(kinds.tolist())
    if present == {BRIGHTNESS}:
        return None
    luma = _luma(pixels)
    if CONTRAST not in present:
        return luma
    mean = _mean_level(luma, mask)
    if SATURATION not in present:
        return mean
    return torch.where(_column(kinds == SATURATION, pixels.device), luma, mean)


def _luma(pixels: torch.Tensor) -> torch.Tensor:
    """Luma (B, 1, H, W) of pixels (B, 3, H, W); separate products and sums, which no compiler fuses differently."""
    red, green, blue = (pixels[:, n : n + 1] * weight for n, weight in enumerate(_WEIGHTS))
    return red.add_(green).add_(blue)


def _mean_level(luma: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean (B, 1, 1, 1) of the luma in whole levels, rounded; sums of whole numbers are exact in any order."""
    levels = luma.add(0.5).floor_()
    if mask is None:
        count: Any = levels[0].numel()
    else:
        levels, count = levels * mask, mask.sum((1, 2, 3), keepdim=True)
    total = levels.sum((1, 2, 3), keepdim=True, dtype=torch.float64)
    return (total / count).add_(0.5).floor_().to(torch.float32)


def _erased(pixels: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
    first = Draws._fields.index("top")
    top, left, height, width, seed = (draws[:, first + n].astype(np.int64) for n in range(5))
    if not height.any():
        return pixels
    if len(pixels) == 1:
        part = (..., slice(int(top[0]), int(top[0] + height[0])), slice(int(left[0]), int(left[0] + width[0])))
        pixels[part] = _noise(pixels.shape, pixels.device, seed, part)
        return pixels
    rows, columns = (torch.arange(side, device=pixels.device) for side in pixels.shape[-2:])
    inside = [
        (places >= begin) & (places < begin + size)
        for places, begin, size in (
            (rows[:, None], _column(top, pixels.device), _column(height, pixels.device)),
            (columns, _column(left, pixels.device), _column(width, pixels.device)),
        )
    ]
    return torch.where(inside[0] & inside[1], _noise(pixels.shape, pixels.device, seed, ...), pixels)


def _noise(shape: torch.Size, device: torch.device, seed: np.ndarray, part: Any) -> torch.Tensor:
    """Normal noise, a function of each image's seed and the place of each value, so that any part can be computed."""
    _, channels, height, width = shape
    places = torch.arange(channels * height * width, device=device).reshape(1, channels, height, width)[part]
    # two keys of 32 bits, each of which depends on the whole seed
    low, high = (torch.from_numpy(part) for part in (seed & _MASK, seed >> 32))
    first = _mixed(_mixed(low) + high)
    second = _mixed(first + low)
    mixed = _mixed(places + _column(first.numpy(), device))
    mixed = _mixed(mixed + _column(second.numpy(), device))
    uniform = (mixed >> 9).to(torch.float32).add_(0.5).mul_(2.0**-22).sub_(1)  # within (-1, 1), exactly
    return torch.erfinv(uniform).mul_(2**0.5)


def _mixed(values: torch.Tensor) -> torch.Tensor:
    """Permutes integers of 32 bits so that neighbours have nothing in common (multiplications and shifted copies)."""
    values = values & _MASK
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        values = ((values ^ (values >> shift)) * factor) & _MASK
    return values ^ (values >> 15)


__all__ = [
    "BRIGHTNESS",
    "CONTRAST",
    "ORDERS",
    "SATURATION",
    "Draws",
    "Finish",
    "draw_jitter",
    "extents_of",
    "finish_together",
]
