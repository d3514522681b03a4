"""Torch data set of labelled images in a table, and collation of its samples."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image
from transformers import BitImageProcessor

from ..columns import LABEL
from ..images import decode_image
from ..pixels.decoding import as_picture, as_pixels, decode_pixels
from ..pixels.finishing import Finish
from ..row_images import RowImages
from ..samplers import SampleKey
from ..seeding import Stream, generator_from_torch, sample_generator

_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


class EvaluationTransform:
    """Evaluation transform: the image processor that is saved beside the weights, applied to an image.

    The stock processor of this package is followed step by step in uint8 (`decode`, `levels`), by its own methods, and
    `finish` normalises whole batches on the model's device to the same bits; other processors are called as they are.
    """

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor
        steps = all(getattr(image_processor, name, False) for name in _STEPS)
        own = type(image_processor) is BitImageProcessor and not getattr(image_processor, "do_pad", None)
        self.in_levels = own and steps and image_processor.rescale_factor == 1 / 255
        self.finish = Finish(image_processor.image_mean, image_processor.image_std) if self.in_levels else None

    def decode(self, value: Any, name: str = "image") -> Any:
        """Decodes an image to its `levels`, or to an image of Pillow for a processor that is called as it is."""
        return self.levels(decode_pixels(value, name)) if self.in_levels else decode_image(value, name)

    def levels(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        """First half: resized and cut pixels (C, height, width), uint8; fp32 where the processor cannot be split."""
        if not self.in_levels:
            return self(image)
        own = self.image_processor
        pixels = own.resize(as_pixels(image), own.size, own.resample)
        cut: torch.Tensor = own.center_crop(pixels, own.crop_size)
        return cut

    def __call__(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        """Transforms one image to a tensor (C, height, width), fp32."""
        picture = as_picture(image) if isinstance(image, torch.Tensor) else image
        pixels: torch.Tensor = self.image_processor(picture, return_tensors="pt")["pixel_values"][0]
        return pixels


class LabelledImages(RowImages):
    """Data set of decoded, transformed images with their labels: `pixel_values` (C, height, width) and `labels`.

    `labels` is a class index, or 0 or 1 per class; it is missing where the table has no column "label". Where the
    transform works in two halves, `pixel_values` are uint8 and `draws` holds what was drawn for the second half, which
    `finish` makes of a batch.

    Args:
        table: Table with the columns "image" (encoded) and, unless only for prediction, "label".
        transform: `TrainTransform`, `EvaluationTransform`, or any function from a PIL image to a tensor.
        num_labels: Number of classes where rows have any number of labels, which become 0 or 1 per class; None where
            each row has one label.
        seed: Seed of the random choices.
        name: Name of the split in messages.
        skip_bad: Whether images that cannot be decoded are skipped instead of raising; see `RowImages`.
    """

    def __init__(
        self,
        table: Table,
        transform: Callable[[Image.Image], torch.Tensor],
        num_labels: int | None = None,
        seed: int = 0,
        name: str = "train",
        skip_bad: bool = False,
    ) -> None:
        super().__init__(table, transform, seed, name, skip_bad)
        self.num_labels, self.labelled = num_labels, LABEL in table.column_names

    def content(self, image: Any, row: dict[str, Any], index: int) -> tuple[Any, Any]:  # noqa: ARG002
        """Image, and its label as the table stores it."""
        return image, row.get(LABEL)

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> tuple[Any, Any]:
        """Black image with the row's label."""
        return image, row.get(LABEL)

    def sample(self, content: tuple[Any, Any]) -> dict[str, torch.Tensor]:
        """Sample with `pixel_values` and, where the table has labels, `labels`."""
        return {**transformed(self.transform, content[0], None), **self._labels(content)}

    def drawn_sample(self, content: tuple[Any, Any], key: SampleKey) -> dict[str, torch.Tensor]:
        """Sample whose random choices are drawn from its key."""
        if not hasattr(self.transform, "drawn"):
            return super().drawn_sample(content, key)
        return {**transformed(self.transform, content[0], (self.seed, key)), **self._labels(content)}

    def _labels(self, content: tuple[Any, Any]) -> dict[str, torch.Tensor]:
        return {"labels": label_tensor(content[1], self.num_labels)} if self.labelled else {}


def transformed(transform: Any, image: Any, drawn_by: tuple[int, Any] | None) -> dict[str, torch.Tensor]:
    """First half of a transform: `pixel_values` of an image and, where there are any, `draws`.

    Args:
        transform: Transform in two halves, or a function from an image to a tensor.
        image: Image, as the transform takes it.
        drawn_by: Seed, and the key with the epoch and the position, that all draws come from; None draws from torch's
            global generator.
    """
    if hasattr(transform, "drawn"):
        if drawn_by is None:
            generator = generator_from_torch()
        else:
            seed, key = drawn_by
            generator = sample_generator(seed, Stream.SAMPLE, key.epoch, key.position)
        pixels, draws = transform.drawn(image, generator)
        return {"pixel_values": pixels, "draws": draws}
    if hasattr(transform, "levels"):
        return {"pixel_values": image if isinstance(image, torch.Tensor) else transform.levels(image)}
    return {"pixel_values": transform(image)}


def label_tensor(value: Any, num_labels: int | None) -> torch.Tensor:
    """Label as a tensor: a class index; with `num_labels`, a list of indices as 0 or 1 per class, fp32."""
    if num_labels is None:
        return torch.tensor(value)
    labels = torch.zeros(num_labels)
    labels[torch.tensor(value, dtype=torch.long)] = 1
    return labels


def collate(samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collates samples of equal size into a batch: each entry is stacked to (B, ...)."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


__all__ = ["EvaluationTransform", "LabelledImages", "collate", "label_tensor", "transformed"]
