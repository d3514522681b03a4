"""Rows of a table of images, and what happens to those that cannot be decoded: what all kinds of data sets share."""

from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image
from torch.utils.data import Dataset

from .columns import IMAGE
from .images import BadImageError, decode_image, shown_path
from .samplers import SampleKey
from .seeding import Stream, derived_generator, seeded


class RowImages(Dataset[dict[str, Any]]):
    """Decoded, transformed images of a table.

    A row is asked for by its number (evaluation), or by a `SampleKey`, from which all random choices of the transform
    are drawn (training). A kind of data set says what belongs to an image, what stands for it where the image cannot be
    decoded, and what becomes of both.

    Args:
        table: Column "image" (encoded), and others.
        transform: Of the image and what belongs to it.
        seed: Of the random choices.
        name: Of the split, for messages.
        skip_bad: An image that cannot be decoded is no error: in training another one, drawn at random, takes its
            place; in evaluation an empty one does, which is not counted.
    """

    def __init__(
        self, table: Table, transform: Any, seed: int = 0, name: str = "train", skip_bad: bool = False
    ) -> None:
        self.table, self.transform, self.seed, self.name, self.skip_bad = table, transform, seed, name, skip_bad

    def __len__(self) -> int:
        return len(self.table)

    def file(self, index: int) -> str | None:
        """File that an image came from, where it had one, as it can be printed."""
        path: str | None = self.table[index][IMAGE].get("path")
        return shown_path(path) if path else path

    def place(self, index: int) -> str:
        """Row of an image, for messages."""
        return f"row {index} of split {self.name!r}"

    def describe(self, index: int) -> str:
        """File or row of an image, for messages."""
        path = self.file(index)
        return f"{path} ({self.place(index)})" if path else self.place(index)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """What `sample` makes of a row, and `index`; in training also `epoch` and `position`, those of the key.

        With `skip_bad` also `bad`: the row that could not be decoded, or -1.

        Raises:
            BadImageError: It cannot be decoded, and `skip_bad` is not set.
        """
        if isinstance(key, SampleKey):
            content, index, bad = self._readable(key)
            with seeded(self.seed, Stream.SAMPLE, key.epoch, key.position):
                sample = self.sample(content)
            sample |= {"epoch": torch.tensor(key.epoch), "position": torch.tensor(key.position)}
        else:
            index, bad = int(key), -1
            try:
                content = self.read(index)
            except BadImageError:
                if not self.skip_bad:
                    raise
                content, bad = self.blank(index), index
            sample = self.sample(content)
        sample["index"] = torch.tensor(index)
        return {**sample, "bad": torch.tensor(bad)} if self.skip_bad else sample

    def _readable(self, key: SampleKey) -> tuple[Any, int, int]:
        """A row's content, its number, and the one that could not be decoded, or -1."""
        index, bad = key.index, -1
        draws = derived_generator(self.seed, Stream.REPLACEMENT, key.epoch, key.position)
        for _ in range(100):
            try:
                return self.read(index), index, bad
            except BadImageError:
                if not self.skip_bad:
                    raise
                bad, index = key.index, int(draws.integers(len(self)))
        raise BadImageError(f"split {self.name!r}: 100 images drawn one after the other could not be decoded")

    def read(self, index: int) -> Any:
        """A row, its image decoded, upright and RGB.

        Raises:
            BadImageError: It cannot be.
        """
        row = self.table[index]
        return self.content(decode_image(row[IMAGE], self.place(index)), row, index)

    def blank(self, index: int) -> Any:
        """What stands for a row that cannot be decoded: a black image, of the size that the table states."""
        row = self.table[index]
        return self.empty_content(Image.new("RGB", (row.get("width", 8), row.get("height", 8))), row)

    def content(self, image: Image.Image, row: dict[str, Any], index: int) -> Any:
        """An image with what belongs to it.

        Raises:
            BadImageError: They do not belong together.
        """
        raise NotImplementedError

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> Any:
        """A black image with what stands for what belongs to it."""
        raise NotImplementedError

    def sample(self, content: Any) -> dict[str, Any]:
        """What `content` or `empty_content` gave, transformed; random choices are torch's, NumPy's or Python's."""
        raise NotImplementedError


__all__ = ["RowImages"]
