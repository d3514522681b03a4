"""The images that contestants are judged on: the same for all, drawn once; and how contestants are run on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as pixels_v2

from ..data.columns import IMAGE, LABEL
from ..data.images import decode_image
from ..data.labelled.tables import read_labelled_tables
from ..data.seeding import derived_generator
from ..data.sources import DataError
from .contestants import Contestant
from .feature_maps import feature_map


@dataclass(frozen=True)
class ImageSample:
    """Labelled images.

    Args:
        name: Of the data set.
        split: Of it.
        images: RGB.
        labels: (n,), numbers of `names`.
        names: Of the labels.
        total: Images of the split that they were drawn from.
    """

    name: str
    split: str
    images: list[Image.Image]
    labels: torch.Tensor
    names: tuple[str, ...]
    total: int

    def first(self, count: int) -> "ImageSample":
        """The first of them, which are as random as all."""
        return ImageSample(
            self.name, self.split, self.images[:count], self.labels[:count], self.names, self.total
        )  # fmt: skip


def draw_images(data: Any, count: int | None, seed: int, split: str | None = None) -> ImageSample:
    """Images of a split in random order.

    Args:
        data: As `finetune` takes it.
        count: How many; None or more than there are takes all.
        seed: Of the draw.
        split: None takes "test" where there is one, or the last.

    Raises:
        DataError: There is no such split, or images have any number of labels.
        BadImageError: An image cannot be decoded.
    """
    found = read_labelled_tables(data)
    split = split or ("test" if "test" in found.tables else list(found.tables)[-1])
    if split not in found.tables:
        raise DataError(f"there is no split {split!r}; there are {', '.join(found.tables)}")
    if found.labels.multi_label:
        raise DataError(f"an image of {found.name} has any number of labels; a comparison needs one each")
    table = found.tables[split]
    order = derived_generator(seed, 0).permutation(len(table))[: count or len(table)]
    rows = table.select(order)
    images = [
        decode_image(row[IMAGE], f"row {place} of split {split!r}") for place, row in zip(order, rows, strict=True)
    ]
    labels = torch.tensor([int(label) for label in rows[LABEL]])
    return ImageSample(found.name, split, images, labels, found.labels.names, len(table))


@dataclass(frozen=True)
class Runner:
    """How contestants compute where time is not what is measured.

    Args:
        precision: "fp32", or "bf16" for autocast.
        batch_size: Images at once.
        device: Where.
    """

    precision: str = "fp32"
    batch_size: int = 32
    device: str = "cpu"

    def logits(self, contestant: Contestant) -> Callable[[torch.Tensor], torch.Tensor]:
        """From pixels (B, C, H, W) of any number of images to logits (B, L), fp32, on the CPU."""
        return lambda pixels: self._batched(contestant, contestant.logits, pixels)

    def features(self, contestant: Contestant) -> Callable[[torch.Tensor], torch.Tensor]:
        """From pixels (B, C, H, W) to the last feature map (B, D, h, w), fp32, on the CPU."""
        return lambda pixels: self._batched(contestant, lambda part: feature_map(contestant.model, part), pixels)

    def _batched(
        self, contestant: Contestant, call: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor
    ) -> torch.Tensor:
        contestant.model.to(self.device).eval()
        with self.mode():
            parts = [call(part.to(self.device)).float().cpu() for part in torch.split(pixels, self.batch_size)]
        return torch.cat(parts)

    @contextmanager
    def mode(self) -> Iterator[None]:
        """Without gradients, in the precision."""
        half = self.precision == "bf16"
        with torch.no_grad(), torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=half):
            yield


def served(contestant: Contestant, images: list[Image.Image]) -> torch.Tensor:
    """(n, C, H, W), through the transform that the contestant is served with."""
    return torch.stack([contestant.transform(image) for image in images])


def canvases(contestant: Contestant, images: list[Image.Image], side: tuple[int, int]) -> torch.Tensor:
    """(n, C, *side), the largest middle part of this shape, resized (bicubic) and normalised for the contestant."""
    height, width = side
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (contestant.pixels.mean, contestant.pixels.std))
    found = []
    for image in images:
        scale = max(height / image.height, width / image.width)
        size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        part = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + width, top + height))
        found.append((pixels_v2.to_image(part).float() / 255 - mean) / std)
    return torch.stack(found)


def right_answers(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(n,), 1.0 where the first choice is the label."""
    return (logits.argmax(-1) == labels).double().numpy()


__all__ = ["ImageSample", "Runner", "canvases", "draw_images", "right_answers", "served"]
