"""Torch data set of labelled images in a table, and collation of its samples."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image

from ..columns import LABEL
from ..row_images import RowImages


class EvaluationTransform:
    """Evaluation transform: the image processor that is saved beside the weights, applied to a PIL image."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Transforms one image to a tensor (C, height, width), fp32."""
        pixels: torch.Tensor = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels


class LabelledImages(RowImages):
    """Data set of decoded, transformed images with their labels: `pixel_values` (C, height, width) and `labels`.

    `labels` is a class index, or 0 or 1 per class; it is missing where the table has no column "label".

    Args:
        table: Table with the columns "image" (encoded) and, unless only for prediction, "label".
        transform: Transform from a PIL image to a tensor.
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

    def content(self, image: Image.Image, row: dict[str, Any], index: int) -> tuple[Image.Image, Any]:  # noqa: ARG002
        """Image, and its label as the table stores it."""
        return image, row.get(LABEL)

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> tuple[Image.Image, Any]:
        """Black image with the row's label."""
        return image, row.get(LABEL)

    def sample(self, content: tuple[Image.Image, Any]) -> dict[str, torch.Tensor]:
        """Sample with `pixel_values` and, where the table has labels, `labels`."""
        image, label = content
        labels = {"labels": label_tensor(label, self.num_labels)} if self.labelled else {}
        return {"pixel_values": self.transform(image), **labels}


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


__all__ = ["EvaluationTransform", "LabelledImages", "collate", "label_tensor"]
