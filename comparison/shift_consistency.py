"""Consistency of a classifier's answers when the image is shifted.

Every measure takes `logits`, a function from pixels (B, C, H, W) to logits (B, classes), and returns values per image,
so that a mean over images has a spread and can be taken over correctly classified images only: consistency rises with
accuracy by itself.

Sources: crop consistency (Zhang 2019, https://arxiv.org/abs/1904.11486, section 4.1), one-pixel jaggedness (Azulay and
Weiss 2019, https://arxiv.org/abs/1805.12177, section 2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ShiftAnswers:
    """Changes of answers when images are shifted.

    Attributes:
        agreement: Share of the compared pairs with the same answer, in [0, 1], (B,).
        distance: Mean total variation between the two probability vectors, sum |p - q| / 2, in [0, 1], (B,).
        pairs: Number of compared pairs per image.
    """

    agreement: torch.Tensor
    distance: torch.Tensor
    pairs: int


def crop_consistency(
    logits: Logits, images: torch.Tensor, crop: tuple[int, int], pairs: int, seed: int
) -> ShiftAnswers:
    """Compares the answers for two crops of each image, drawn uniformly.

    Args:
        logits: Function from pixels to logits.
        images: Images (B, C, H, W), larger than the crop in at least one direction.
        crop: (height, width) of the model's input.
        pairs: Number of pairs of crops per image.
        seed: Seed of the crops: the n-th image of a call gets the same crops for every model.

    Raises:
        ValueError: The images are not larger than the crop.
    """
    room = (images.shape[2] - crop[0], images.shape[3] - crop[1])
    if min(room) < 0 or max(room) == 0:
        raise ValueError(f"crops of {crop} pixels need larger images to move in, got {tuple(images.shape[2:])}")
    generator = torch.Generator().manual_seed(seed)
    agreement, distance = [], []
    for _ in range(pairs):
        first, second = (_crops(images, crop, room, generator) for _ in range(2))
        same, apart = _compared(logits(first), logits(second))
        agreement.append(same)
        distance.append(apart)
    return ShiftAnswers(torch.stack(agreement).mean(0), torch.stack(distance).mean(0), pairs)


def one_pixel_jaggedness(logits: Logits, images: torch.Tensor, crop: tuple[int, int], steps: int) -> ShiftAnswers:
    """Compares the answers for successive positions of a window that slides over the image by one pixel at a time.

    `1 - agreement` is the jaggedness: the share of steps at which the answer changes. The window slides along the
    diagonal, centred in the free space, and only in directions with enough space.

    Raises:
        ValueError: The free space is smaller than the number of steps.
    """
    room = (images.shape[2] - crop[0], images.shape[3] - crop[1])
    if max(room) < steps or steps < 1:
        raise ValueError(f"{steps} steps of one pixel need as much room beside the crop, got {room}")
    start = [(pixels - steps) // 2 if pixels >= steps else pixels // 2 for pixels in room]
    moves = [int(pixels >= steps) for pixels in room]
    agreement, distance, last = [], [], None
    for step in range(steps + 1):
        top, left = (begin + step * move for begin, move in zip(start, moves, strict=True))
        answer = logits(images[:, :, top : top + crop[0], left : left + crop[1]])
        if last is not None:
            same, apart = _compared(last, answer)
            agreement.append(same)
            distance.append(apart)
        last = answer
    return ShiftAnswers(torch.stack(agreement).mean(0), torch.stack(distance).mean(0), steps)


def circular_shifts(
    logits: Logits, images: torch.Tensor, shifts: list[tuple[int, int]], batch_size: int = 64
) -> tuple[ShiftAnswers, torch.Tensor]:
    """Compares the answers for circularly shifted images with those for the unshifted images.

    Args:
        logits: Function from pixels to logits.
        images: Images (B, C, H, W).
        shifts: Shifts (down, right) in pixels.
        batch_size: Images per batch.

    Returns:
        Answers over all shifts, and whether they agree, bool (B, shifts).
    """
    agreement, distance = shift_table(logits, images, shifts, batch_size)
    return ShiftAnswers(agreement.mean(1), distance.mean(1), len(shifts)), agreement > 0.5


def shift_table(
    logits: Logits, images: torch.Tensor, shifts: list[tuple[int, int]], batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compares each image under each shift with the unshifted image; see `circular_shifts` for the arguments.

    Returns:
        Agreement (1 or 0) and total variation distance, each (B, shifts).
    """
    reference = _in_batches(logits, images, batch_size)
    same, apart = [], []
    for down, right in shifts:
        moved = torch.roll(images, (down, right), dims=(2, 3))
        agrees, distance = _compared(reference, _in_batches(logits, moved, batch_size))
        same.append(agrees)
        apart.append(distance)
    return torch.stack(same, dim=1), torch.stack(apart, dim=1)


def shift_grid(reach: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """Lists all shifts from 0 to `reach` (excluded) in steps of `step` pixels, row by row, as cells of a heat map."""
    return [(down, right) for down in range(0, reach[0], step) for right in range(0, reach[1], step)]


def equivariance_error(
    features: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, shift: tuple[int, int]
) -> torch.Tensor:
    """Computes the distance between the features of a shifted image and the shifted features; 0 is equivariance.

    Args:
        features: Function from images (B, C, H, W) to a feature map (B, D, h, w).
        images: Images (B, C, H, W), shifted circularly.
        shift: Shift (down, right) in pixels. For a fraction of a cell the feature map is shifted by bilinear
            interpolation.

    Returns:
        Relative errors |F(shifted x) - shifted F(x)| / |F(x)|, both centred over the map, (B,); about sqrt(2) for
        unrelated features.
    """
    still, moved = features(images).float(), features(torch.roll(images, shift, dims=(2, 3))).float()
    cells = [pixels * side / size for pixels, side, size in zip(shift, still.shape[2:], images.shape[2:], strict=True)]
    expected = still
    for dim, amount in zip((2, 3), cells, strict=True):
        whole = int(amount // 1)
        part = amount - whole
        low = torch.roll(expected, whole, dims=dim)
        expected = low if part == 0 else (1 - part) * low + part * torch.roll(expected, whole + 1, dims=dim)
    centre = still.mean((2, 3), keepdim=True)
    norm = (still - centre).flatten(1).norm(dim=1).clamp(min=1e-12)
    return (moved - expected).flatten(1).norm(dim=1) / norm


def _in_batches(logits: Logits, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    return torch.cat([logits(images[first : first + batch_size]) for first in range(0, len(images), batch_size)])


def _crops(
    images: torch.Tensor, crop: tuple[int, int], room: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    return torch.stack([image[:, t : t + crop[0], x : x + crop[1]] for image, t, x in _places(images, room, generator)])


def _places(
    images: torch.Tensor, room: tuple[int, int], generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, int, int]]:
    for image in images:
        top, left = (int(torch.randint(side + 1, (), generator=generator)) for side in room)
        yield image, top, left


def _compared(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compares answers row by row: whether they agree (1.0 or 0.0), and the total variation of the probabilities."""
    broken = ~(first.isfinite().all(-1) & second.isfinite().all(-1))
    if broken.any():
        raise ValueError(f"the model's logits are not finite for {int(broken.sum())} of {len(broken)} images")
    one, other = first.float().softmax(-1), second.float().softmax(-1)
    return (one.argmax(-1) == other.argmax(-1)).float(), (one - other).abs().sum(-1) / 2


__all__ = [
    "Logits",
    "ShiftAnswers",
    "circular_shifts",
    "crop_consistency",
    "equivariance_error",
    "one_pixel_jaggedness",
    "shift_grid",
    "shift_table",
]
