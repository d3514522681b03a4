"""Torch data set of labelled images in a stream, and collation of its samples."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from ..columns import IMAGE, LABEL
from ..images import BadImageError, decode_image
from ..labelled.dataset import collate, label_tensor, transformed
from .streams import StreamKey


class StreamedImages(Dataset[dict[str, torch.Tensor]]):
    """Data set that differs from `LabelledImages` by keys that carry their rows; rows without a label have no `labels`.

    Args:
        transform: Training transform, a `TrainTransform`.
        num_labels: Number of classes where rows have any number of labels; None where each row has one label.
        seed: Seed of the random choices.
        skip_bad: Whether images that cannot be decoded are skipped instead of raising; `collate_streamed` replaces
            them.
    """

    def __init__(
        self,
        transform: Any,
        num_labels: int | None = None,
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        self.transform, self.num_labels, self.seed, self.skip_bad = transform, num_labels, seed, skip_bad

    def describe(self, index: int) -> str:
        """Row of an image, as messages name it."""
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
            decode = getattr(self.transform, "decode", decode_image)
            image = decode(key.row[IMAGE], self.describe(key.index))
        except BadImageError:
            if not self.skip_bad:
                raise
            return sample
        pixels = transformed(self.transform, image, (self.seed, key))
        labels = {"labels": label_tensor(key.row[LABEL], self.num_labels)} if LABEL in key.row else {}
        return {**pixels, **labels, **sample}

    def finish(self, batch: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Batch of samples with `pixel_values` as the model takes them, on a device; all else stays on the host."""
        finished: dict[str, Any] = self.transform.finish(batch, device)
        return finished


def collate_streamed(samples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collates samples like `collate`, with each missing image replaced by the next one and its row noted in `bad`.

    Raises:
        BadImageError: All images of the batch are missing.
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
