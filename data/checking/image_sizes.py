"""Sizes of a table's images by their headers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median_low
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset

from ..columns import IMAGE
from ..image_headers import ImageHeader, read_headers

MOST_READ = 1000


@dataclass(frozen=True)
class ImageSizes:
    """Sizes of images, upright, in pixels.

    Args:
        images: Number of images whose size was read.
        of: Number of images of the split.
        smallest: Height and width of the image with the fewest pixels.
        middle: Height and width of the image in the middle by its pixels.
        largest: Height and width of the image with the most pixels.
    """

    images: int
    of: int
    smallest: tuple[int, int]
    middle: tuple[int, int]
    largest: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns the sizes as plain data."""
        return asdict(self)


def image_sizes(splits: Mapping[str, Any]) -> dict[str, ImageSizes]:
    """Reads the sizes of the images of each split that is a table; of a large one of 1,000 evenly spread images.

    Args:
        splits: Tables with the column "image" (encoded), by name; images that cannot be read are left out.
    """
    found = {}
    for name, table in splits.items():
        if isinstance(table, IterableDataset) or not isinstance(table, Dataset) or not len(table):
            continue
        rows = np.linspace(0, len(table) - 1, min(len(table), MOST_READ)).astype(int).tolist()
        images = table.select_columns([IMAGE]).select(rows)
        headers = read_headers(partial(_encoded, images), ["image"] * len(rows))
        sizes = [(one.upright[1], one.upright[0]) for one in headers if isinstance(one, ImageHeader)]
        if sizes:
            ranked = sorted(sizes, key=lambda size: (size[0] * size[1], size))
            found[name] = ImageSizes(len(sizes), len(table), ranked[0], median_low(ranked), ranked[-1])
    return found


def _encoded(table: Dataset, row: int) -> Any:
    return table[row][IMAGE]


__all__ = ["MOST_READ", "ImageSizes", "image_sizes"]
