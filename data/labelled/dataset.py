"""Rows of a table as tensors, for a data loader."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image

from ..columns import LABEL
from ..row_images import RowImages


class EvaluationTransform:
    """PIL image to what the model sees, by the image processor that is saved beside the weights."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """(C, height, width), fp32."""
        pixels: torch.Tensor = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels


class LabelledImages(RowImages):
    """Decoded, transformed images with their labels: `pixel_values` (C, height, width) and `labels`.

    Labels are a number, or 0 and 1 per class; there are none where the table has no column "label".

    Args:
        table: Columns "image" (encoded) and, unless it is only predicted, "label".
        transform: PIL image to tensor.
        num_labels: Where rows have any number of labels: how many there are; they become 0 or 1 per class.
        seed: As `RowImages`.
        name: As `RowImages`.
        skip_bad: As `RowImages`.
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
        """The image, and its label as the table has it."""
        return image, row.get(LABEL)

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> tuple[Image.Image, Any]:
        """A black image with the row's label."""
        return image, row.get(LABEL)

    def sample(self, content: tuple[Image.Image, Any]) -> dict[str, torch.Tensor]:
        """Pixels and labels."""
        image, label = content
        labels = {"labels": label_tensor(label, self.num_labels)} if self.labelled else {}
        return {"pixel_values": self.transform(image), **labels}


def label_tensor(value: Any, num_labels: int | None) -> torch.Tensor:
    """A label's number; with `num_labels` a list of them as 0 or 1 per class, (num_labels,), fp32."""
    if num_labels is None:
        return torch.tensor(value)
    labels = torch.zeros(num_labels)
    labels[torch.tensor(value, dtype=torch.long)] = 1
    return labels


def collate(samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Samples of one size as a batch: each entry stacked, (B, ...)."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


__all__ = ["EvaluationTransform", "LabelledImages", "collate", "label_tensor"]
