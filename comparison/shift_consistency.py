"""Whether an answer depends on where in the picture a thing is.

Every measure here takes `logits`, a function from pixels (B, C, H, W) to logits (B, classes), and works on images one
by one, so that a mean over images has a spread and can be taken over those that are classified correctly alone:
consistency rises with accuracy by itself.

Sources: crop consistency (Zhang 2019, https://arxiv.org/abs/1904.11486, section 4.1), one-pixel jaggedness (Azulay and
Weiss 2019, https://arxiv.org/abs/1805.12177, section 2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ShiftAnswers:
    """How answers change when images move.

    Attributes:
        agreement: (B,), part of the compared pairs with the same answer, in [0, 1].
        distance: (B,), mean total variation between the two probability vectors, in [0, 1]: sum |p - q| / 2.
        pairs: Compared pairs per image.
    """

    agreement: torch.Tensor
    distance: torch.Tensor
    pairs: int


def crop_consistency(
    logits: Logits, images: torch.Tensor, crop: tuple[int, int], pairs: int, seed: int
) -> ShiftAnswers:
    """Two crops of one image, drawn uniformly: do the answers agree?

    Args:
        logits: The model.
        images: (B, C, H, W), larger than the crop in both directions, or in one.
        crop: (height, width) of what the model is shown.
        pairs: Pairs of crops per image.
        seed: Of the crops: the n-th image of a call gets the same ones from every model.

    Raises:
        ValueError: The images leave no room to move.
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
    """A window that slides over the image by one pixel at a time: how often does the answer change?

    `1 - agreement` is the jaggedness: the part of the steps at which the answer flips. The window slides along the
    diagonal from the middle of the room there is, and only along the direction in which there is any.

    Raises:
        ValueError: The room is smaller than the steps.
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
    """Images rolled round their edges, against themselves unmoved.

    Args:
        logits: The model.
        images: (B, C, H, W).
        shifts: (down, right) in pixels.
        batch_size: Images at once.

    Returns:
        The answers over all shifts, and where they agree: (B, shifts), bool.
    """
    agreement, distance = shift_table(logits, images, shifts, batch_size)
    return ShiftAnswers(agreement.mean(1), distance.mean(1), len(shifts)), agreement > 0.5


def shift_table(
    logits: Logits, images: torch.Tensor, shifts: list[tuple[int, int]], batch_size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each image and each shift, whether the answer is that of the image unmoved (1 or 0), and how far it is.

    Returns:
        Agreement and total variation distance, each (B, shifts); the arguments are those of `circular_shifts`.
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
    """All shifts from none up to `reach` (excluded) by `step` pixels, row by row: a heat map's cells."""
    return [(down, right) for down in range(0, reach[0], step) for right in range(0, reach[1], step)]


def equivariance_error(
    features: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, shift: tuple[int, int]
) -> torch.Tensor:
    """How far the features of a moved image are from the moved features: 0 is equivariance.

    Args:
        features: From (B, C, H, W) to a feature map (B, D, h, w).
        images: (B, C, H, W), rolled round their edges.
        shift: (down, right) in pixels. By less than a cell, or not by whole ones, the feature map is moved by as much
            between cells, by bilinear interpolation.

    Returns:
        (B,), |F(shifted x) - shifted F(x)| / |F(x)|, both centred over the map: about sqrt(2) for unrelated features.
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
    """Of each row, whether the answers agree (1.0 or 0.0) and the total variation of the probabilities."""
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
