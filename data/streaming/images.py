"""Rows of a stream as tensors, for a data loader."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from ..columns import IMAGE, LABEL
from ..images import BadImageError, decode_image
from ..labelled.dataset import collate, label_tensor
from ..seeding import Stream, seeded
from .streams import StreamKey


class StreamedImages(Dataset[dict[str, torch.Tensor]]):
    """Differs from `LabelledImages` by rows that come with their keys.

    Args:
        transform: PIL image to tensor.
        num_labels: Where rows have any number of labels: how many there are.
        seed: Of the random choices.
        skip_bad: An image that cannot be decoded is no error; `collate_streamed` puts another one in its place.
    """

    def __init__(
        self,
        transform: Callable[[Image.Image], torch.Tensor],
        num_labels: int | None = None,
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        self.transform, self.num_labels, self.seed, self.skip_bad = transform, num_labels, seed, skip_bad

    def describe(self, index: int) -> str:
        """Row of an image, for messages."""
        return f"row {index} of the stream"

    def __getitem__(self, key: StreamKey) -> dict[str, torch.Tensor]:
        sample = {
            "index": torch.tensor(key.index),
            "epoch": torch.tensor(key.epoch),
            "position": torch.tensor(key.position),
        }
        if self.skip_bad:
            sample["bad"] = torch.tensor(-1)
        try:
            image = decode_image(key.row[IMAGE], self.describe(key.index))
        except BadImageError:
            if not self.skip_bad:
                raise
            return sample
        with seeded(self.seed, Stream.SAMPLE, key.epoch, key.position):
            pixels = self.transform(image)
        return {"pixel_values": pixels, "labels": label_tensor(key.row[LABEL], self.num_labels), **sample}


def collate_streamed(samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """As `collate`; an image that is missing is replaced by the next one of the batch, and noted in `bad`.

    Raises:
        BadImageError: All are missing.
    """
    good = [number for number, sample in enumerate(samples) if "pixel_values" in sample]
    if not good:
        rows = ", ".join(str(int(sample["index"])) for sample in samples[:8])
        raise BadImageError(f"none of a batch's images could be decoded, rows {rows} of the stream")
    filled: list[dict[str, Any]] = []
    for number, sample in enumerate(samples):
        if "pixel_values" in sample:
            filled.append(sample)
            continue
        other = samples[next((n for n in good if n > number), good[0])]
        filled.append({**other, **sample, "bad": sample["index"], "index": other["index"]})
    return collate(filled)


__all__ = ["StreamedImages", "collate_streamed"]
