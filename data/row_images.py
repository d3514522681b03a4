"""Base class of data sets of decoded images, with the treatment of images that cannot be decoded."""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import torch
from datasets import Dataset as Table
from PIL import Image
from torch.utils.data import Dataset

from .columns import IMAGE
from .images import BadImageError, decode_image, shown_path
from .samplers import SampleKey
from .seeding import Stream, sample_generator, seeded


class RowImages(Dataset[dict[str, Any]], ABC):
    """Data set of decoded, transformed images of a table.

    A row is indexed by its number (evaluation), or by a `SampleKey`, from which all random choices of the transform
    are drawn (training). Subclasses define the annotation of an image (`content`), the substitute where the image
    cannot be decoded (`empty_content`), and the sample made from either (`sample`).

    Args:
        table: Table with the column "image" (encoded), and columns of annotations.
        transform: Transform of the image and its annotation.
        seed: Seed of the random choices.
        name: Name of the split in messages.
        skip_bad: Whether images that cannot be decoded are skipped instead of raising: in training another image,
            drawn at random, replaces them; in evaluation an empty one does, which is not counted.
    """

    def __init__(
        self, table: Table, transform: Any, seed: int = 0, name: str = "train", skip_bad: bool = False
    ) -> None:
        self.table, self.transform, self.seed, self.name, self.skip_bad = table, transform, seed, name, skip_bad
        self.cache: Any = None  # a `PixelCache` of the decoded rows, or None

    def __len__(self) -> int:
        return len(self.table)

    def file(self, index: int) -> str | None:
        """Path of the file that an image came from, as it can be printed; None where there is none."""
        path: str | None = self.table[index][IMAGE].get("path")
        return shown_path(path) if path else path

    def place(self, index: int) -> str:
        """Row of an image, as messages name it."""
        return f"row {index} of split {self.name!r}"

    def describe(self, index: int) -> str:
        """File, where there is one, and row of an image, as messages name them."""
        path = self.file(index)
        return f"{path} ({self.place(index)})" if path else self.place(index)

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """Sample of a row, as `sample` returns it, with `index`; in training also the key's `epoch` and `position`.

        With `skip_bad` the sample also has `bad`: the row that could not be decoded, or -1.

        Raises:
            BadImageError: The image cannot be decoded, and `skip_bad` is not set.
        """
        if isinstance(key, SampleKey):
            content, index, bad = self._readable(key)
            sample = self.drawn_sample(content, key)
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
        """Content of the key's row or of its replacement, its row, and the row that could not be decoded, or -1."""
        try:
            return self.read(key.index), key.index, -1
        except BadImageError:
            if not self.skip_bad:
                raise
        draws = sample_generator(self.seed, Stream.REPLACEMENT, key.epoch, key.position)
        for _ in range(99):
            index = int(draws.integers(len(self)))
            with suppress(BadImageError):
                return self.read(index), index, key.index
        raise BadImageError(f"split {self.name!r}: 100 images drawn one after the other could not be decoded")

    def read(self, index: int) -> Any:
        """Content of a row, with its image as `decoded` returns it, from the cache where it is stored.

        Raises:
            BadImageError: The image cannot be decoded.
        """
        row = self.table[index]
        image: Any = None if self.cache is None else self.cache.get(index)
        if image is None:
            image = self.decoded(row, index)
            if self.cache is not None and isinstance(image, torch.Tensor):
                self.cache.put(index, image)
        return self.content(image, row, index)

    def decoded(self, row: dict[str, Any], index: int) -> Any:
        """Image of a row, decoded, upright and RGB, by the transform's own `decode` if it has one.

        Raises:
            BadImageError: The image cannot be decoded.
        """
        return getattr(self.transform, "decode", decode_image)(row[IMAGE], self.place(index))

    def blank(self, index: int) -> Any:
        """Substitute for a row that cannot be decoded: a black image of the size that the table states, or 8 x 8."""
        row = self.table[index]
        return self.empty_content(Image.new("RGB", (row.get("width", 8), row.get("height", 8))), row)

    @abstractmethod
    def content(self, image: Image.Image, row: dict[str, Any], index: int) -> Any:
        """Image with its annotation.

        Raises:
            BadImageError: The image and the annotation do not fit each other.
        """

    @abstractmethod
    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> Any:
        """Black image with an annotation that stands for the missing one."""

    @abstractmethod
    def sample(self, content: Any) -> dict[str, Any]:
        """Sample from `content` or `empty_content`, transformed; it may draw from torch, NumPy and Python."""

    def drawn_sample(self, content: Any, key: SampleKey) -> dict[str, Any]:
        """Sample whose random choices depend on its key alone: `sample` with the three global generators seeded."""
        with seeded(self.seed, Stream.SAMPLE, key.epoch, key.position):
            return self.sample(content)

    def finish(self, batch: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
        """Batch of samples with `pixel_values` as the model takes them, on a device; all else stays on the host."""
        finish = getattr(self.transform, "finish", None)
        if finish is None:
            return {**batch, "pixel_values": batch["pixel_values"].to(device, non_blocking=True)}
        finished: dict[str, Any] = finish(batch, device)
        return finished


__all__ = ["RowImages"]
