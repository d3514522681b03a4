"""Rows of a table as tensors, for a data loader."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image
from torch.utils.data import Dataset

from .image_data import IMAGE, LABEL
from .images import BadImageError, decode_image
from .samplers import SampleKey
from .seeding import Stream, derived_generator, seeded


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
        table: Columns "image" (encoded) and, unless it is only predicted, "label".
        transform: PIL image to tensor.
        num_labels: Where rows have any number of labels: how many there are; they become 0 or 1 per class.
        seed: Of the random choices.
        name: Of the split, for messages.
        skip_bad: An image that cannot be decoded is no error: in training another one, drawn at random, takes its
            place; in evaluation it is left out (see `collate`).
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
        self.table, self.transform, self.num_labels, self.seed, self.name = table, transform, num_labels, seed, name
        self.skip_bad, self.labelled = skip_bad, LABEL in table.column_names

    def __len__(self) -> int:
        return len(self.table)

    def file(self, index: int) -> str | None:
        """File that an image came from, where it had one."""
        path: str | None = self.table[index][IMAGE].get("path")
        return path

    def describe(self, index: int) -> str:
        """File or row of an image, for messages."""
        path, row = self.file(index), f"row {index} of split {self.name!r}"
        return f"{path} ({row})" if path else row

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        """`pixel_values` (C, height, width), `labels` (a number, or 0 and 1 per class) and `index`.

        In training also `epoch` and `position`, those of the key. With `skip_bad` also `bad`: the row that could not
        be decoded, or -1.

        Raises:
            BadImageError: It cannot be decoded, and `skip_bad` is not set.
        """
        if not isinstance(key, SampleKey):
            return self._evaluation_sample(int(key))
        index, bad = key.index, -1
        draws = derived_generator(self.seed, Stream.REPLACEMENT, key.epoch, key.position)
        for _ in range(100):
            try:
                image, labels = self._row(index)
                break
            except BadImageError:
                if not self.skip_bad:
                    raise
                bad, index = key.index, int(draws.integers(len(self)))
        else:
            raise BadImageError(f"split {self.name!r}: 100 images drawn one after the other could not be decoded")
        with seeded(self.seed, Stream.SAMPLE, key.epoch, key.position):
            pixels = self.transform(image)
        place = {"epoch": torch.tensor(key.epoch), "position": torch.tensor(key.position)}
        return {"pixel_values": pixels, **labels, **self._numbers(index, bad), **place}

    def _evaluation_sample(self, index: int) -> dict[str, torch.Tensor]:
        bad = -1
        try:
            image, labels = self._row(index)
        except BadImageError:
            if not self.skip_bad:
                raise
            image, labels, bad = Image.new("RGB", (8, 8)), self._labels(self.table[index]), index
        return {"pixel_values": self.transform(image), **labels, **self._numbers(index, bad)}

    def _row(self, index: int) -> tuple[Image.Image, dict[str, torch.Tensor]]:
        row = self.table[index]
        return decode_image(row[IMAGE], f"row {index} of split {self.name!r}"), self._labels(row)

    def _numbers(self, index: int, bad: int) -> dict[str, torch.Tensor]:
        numbers = {"index": torch.tensor(index)}
        return {**numbers, "bad": torch.tensor(bad)} if self.skip_bad else numbers

    def _labels(self, row: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"labels": label_tensor(row[LABEL], self.num_labels)} if self.labelled else {}


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
