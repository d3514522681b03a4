"""Rows of a table as tensors, for a data loader."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image
from torch.utils.data import Dataset

from .image_data import IMAGE, LABEL
from .images import decode_image
from .samplers import SampleKey
from .seeding import Stream, seeded


class EvaluationTransform:
    """PIL image to what the model sees, by the image processor that is saved beside the weights."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """(C, height, width), fp32."""
        pixels: torch.Tensor = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels


class LabelledImages(Dataset[dict[str, torch.Tensor]]):
    """Decoded, transformed images with their labels.

    A row is asked for by its number (evaluation), or by a `SampleKey`, from which all random choices of the transform
    are drawn (training).

    Args:
        table: Columns "image" (encoded) and "label".
        transform: PIL image to tensor.
        num_labels: Where rows have any number of labels: how many there are; they become 0 or 1 per class.
        seed: Of the random choices.
        name: Of the split, for messages.
    """

    def __init__(
        self,
        table: Table,
        transform: Callable[[Image.Image], torch.Tensor],
        num_labels: int | None = None,
        seed: int = 0,
        name: str = "train",
    ) -> None:
        self.table, self.transform, self.num_labels, self.seed, self.name = table, transform, num_labels, seed, name

    def __len__(self) -> int:
        return len(self.table)

    def describe(self, index: int) -> str:
        """File or row of an image, for messages."""
        path = self.table[index][IMAGE].get("path")
        row = f"row {index} of split {self.name!r}"
        return f"{path} ({row})" if path else row

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        """`pixel_values` (C, height, width), `labels` (a number, or 0 and 1 per class) and `index`.

        In training also `epoch` and `position`, those of the key.
        """
        index = key.index if isinstance(key, SampleKey) else int(key)
        row = self.table[index]
        image = decode_image(row[IMAGE], f"row {index} of split {self.name!r}")
        sample = {"labels": self._labels(row[LABEL]), "index": torch.tensor(index)}
        if not isinstance(key, SampleKey):
            return {"pixel_values": self.transform(image), **sample}
        with seeded(self.seed, Stream.SAMPLE, key.epoch, key.position):
            pixels = self.transform(image)
        place = {"epoch": torch.tensor(key.epoch), "position": torch.tensor(key.position)}
        return {"pixel_values": pixels, **sample, **place}

    def _labels(self, value: Any) -> torch.Tensor:
        if self.num_labels is None:
            return torch.tensor(value)
        labels = torch.zeros(self.num_labels)
        labels[torch.tensor(value, dtype=torch.long)] = 1
        return labels


def collate(samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Samples of one size as a batch: each entry stacked, (B, ...)."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


__all__ = ["EvaluationTransform", "LabelledImages", "collate"]
