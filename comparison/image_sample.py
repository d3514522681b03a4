"""Sample of images for all contestants, drawn once, and the inference of contestants on it."""

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
from ..data.splits import check_split
from .contestants import Contestant
from .feature_maps import feature_map


@dataclass(frozen=True)
class ImageSample:
    """Sample of labelled images.

    Args:
        name: Name of the data set.
        split: Name of the split.
        images: Images in RGB.
        labels: Indices into `names`, (n,).
        names: Label names.
        total: Number of images in the split from which the sample was drawn.
    """

    name: str
    split: str
    images: list[Image.Image]
    labels: torch.Tensor
    names: tuple[str, ...]
    total: int

    def first(self, count: int) -> "ImageSample":
        """Returns the first `count` images, which are a random sample too."""
        return ImageSample(
            self.name, self.split, self.images[:count], self.labels[:count], self.names, self.total
        )  # fmt: skip


def draw_images(data: Any, count: int | None, seed: int, split: str | None = None) -> ImageSample:
    """Draws images of a split in random order.

    Args:
        data: Data set in any form that `finetune` takes.
        count: Number of images; None, or a number above that of the split, takes all.
        seed: Seed of the draw.
        split: Name of the split; None takes "test" if it exists, else the last.

    Raises:
        DataError: The split does not exist, or images have any number of labels.
        BadImageError: An image cannot be decoded.
    """
    found = read_labelled_tables(data)
    split = split or ("test" if "test" in found.tables else list(found.tables)[-1])
    check_split(split, found.tables, found.name)
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
    """Inference of contestants in measurements other than of time.

    Args:
        precision: Number format: "fp32", or "bf16" for autocast.
        batch_size: Images per batch.
        device: Device to compute on.
    """

    precision: str = "fp32"
    batch_size: int = 32
    device: str = "cpu"

    def logits(self, contestant: Contestant) -> Callable[[torch.Tensor], torch.Tensor]:
        """Returns a function from pixels (B, C, H, W), any B, to logits (B, L), float32, on the CPU."""
        return lambda pixels: self._batched(contestant, contestant.logits, pixels)

    def features(self, contestant: Contestant) -> Callable[[torch.Tensor], torch.Tensor]:
        """Returns a function from pixels (B, C, H, W) to the last feature map (B, D, h, w), float32, on the CPU."""
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
        """Disables gradients and sets the precision."""
        half = self.precision == "bf16"
        with torch.no_grad(), torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=half):
            yield


def served(contestant: Contestant, images: list[Image.Image]) -> torch.Tensor:
    """Preprocesses images with the transform that the contestant is served with, (n, C, H, W)."""
    return torch.stack([contestant.transform(image) for image in images])


def canvases(contestant: Contestant, images: list[Image.Image], side: tuple[int, int]) -> torch.Tensor:
    """Crops the largest centre part with shape `side`, resizes it (bicubic) and normalises it, (n, C, *side)."""
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
    """Returns 1.0 for each image whose first choice is the label, else 0.0, (n,)."""
    return (logits.argmax(-1) == labels).double().numpy()


__all__ = ["ImageSample", "Runner", "canvases", "draw_images", "right_answers", "served"]
