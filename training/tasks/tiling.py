"""Cutting of large pictures into overlapping tiles, and the options that say how.

The options are those of SAHI (Akyon et al. 2022, https://arxiv.org/abs/2202.06934): the size of a tile in pixels, the
overlap of neighbours as a share of a tile, and how boxes of several tiles are merged.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...data.argument_names import argument

Region = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the picture
Tiles = int | str | tuple[int, int] | None  # side, "HEIGHTxWIDTH", (height, width), or None for no tiles

OVERLAP, MERGE = 0.2, "nmm-ios"  # defaults, which are SAHI's
MERGES = ("nmm-ios", "nmm-iou", "nms-ios", "nms-iou")
LEAST_SIDE, MOST_TILES = 32, 10_000


@dataclass(frozen=True)
class Tiling:
    """Way to look at a large picture in tiles.

    Args:
        tile_hw: (height, width) of a tile in pixels.
        overlap: Least overlap of neighbouring tiles, as a share of a tile's side, in [0, 1).
        merge: How boxes of several tiles become one: "nmm-ios", "nmm-iou", "nms-ios" or "nms-iou"; see `merge_views`.
        full_picture: Whether the model sees the picture as a whole too.
    """

    tile_hw: tuple[int, int]
    overlap: float = OVERLAP
    merge: str = MERGE
    full_picture: bool = True

    @property
    def size(self) -> str:
        """Height and width as an option states them, such as "384x512"."""
        return "x".join(map(str, self.tile_hw))

    def regions(self, height: int, width: int) -> list[Region]:
        """Returns the tiles of a picture, row by row; a picture that fits one tile is one region, the whole of it.

        All tiles have one size, are spread evenly and overlap by `overlap` or more; the last ends at the edge.

        Args:
            height: Height of the picture in pixels.
            width: Width of the picture in pixels.

        Raises:
            ValueError: The picture would become more than `MOST_TILES` tiles.
        """
        tops, lefts = (
            _starts(whole, side, self.overlap) for whole, side in zip((height, width), self.tile_hw, strict=True)
        )
        if (count := len(tops) * len(lefts)) > MOST_TILES:
            raise ValueError(
                f"{argument('tiles')} {self.size} with an overlap of {self.overlap:g} makes {count:,} tiles of a "
                f"picture of {height} x {width} pixels; more than {MOST_TILES:,} are refused: take larger tiles"
            )
        tall, wide = min(height, self.tile_hw[0]), min(width, self.tile_hw[1])
        return [(left, top, left + wide, top + tall) for top in tops for left in lefts]

    def fits(self, height: int, width: int) -> bool:
        """Returns True if a picture (height, width) fits one tile; it is then processed as without tiles."""
        return height <= self.tile_hw[0] and width <= self.tile_hw[1]

    def fit_note(self, fitting: int, pictures: int) -> str | None:
        """Returns a line that says how many pictures fit one tile; None if none does."""
        if not fitting:
            return None
        rest = "" if fitting < pictures else f": {argument('tiles')} {self.size} changed nothing"
        verb = "fits" if fitting == 1 else "fit"
        return f"{fitting} of {pictures} pictures {verb} one tile of {self.size} pixels, seen whole{rest}"

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data, for results."""
        return {
            "tile_hw": list(self.tile_hw), "overlap": self.overlap, "merge": self.merge,
            "full_picture": self.full_picture,
        }  # fmt: skip


def _starts(whole: int, side: int, overlap: float) -> list[int]:
    """Returns where tiles of a side begin along a picture's side."""
    if whole <= side:
        return [0]
    # 1e-9: 500 * (1 - 0.2) must be a step of 400 pixels, not of 399.99
    step = max(1, int(side * (1 - overlap) + 1e-9))
    gaps = -(-(whole - side) // step)
    return [(whole - side) * number // gaps for number in range(gaps + 1)]


def tiling_of(
    tiles: Tiles, tile_overlap: float | None = None, tile_merge: str | None = None, tiles_only: bool = False
) -> Tiling | None:
    """Returns the way to look at pictures that a caller's options state; None without `tiles`.

    Args:
        tiles: Side of a tile in pixels, "HEIGHTxWIDTH" or (height, width).
        tile_overlap: Least overlap, in [0, 1); None means 0.2.
        tile_merge: One of `MERGES`; None means "nmm-ios".
        tiles_only: Whether to leave out the picture as a whole.

    Raises:
        ValueError: A value is out of its range, or an option is given without `tiles`.
    """
    if tiles is None:
        given = {"tile_overlap": tile_overlap, "tile_merge": tile_merge, "tiles_only": tiles_only or None}
        if useless := [argument(name) for name, value in given.items() if value is not None]:
            raise ValueError(f"{' and '.join(useless)} has no effect without {argument('tiles')}")
        return None
    overlap, merge = OVERLAP if tile_overlap is None else tile_overlap, tile_merge or MERGE
    if not 0 <= overlap < 1:
        raise ValueError(f"{argument('tile_overlap')} must be a share of a tile, 0 to below 1, got {overlap!r}")
    if merge not in MERGES:
        raise ValueError(f"{argument('tile_merge')} must be {', '.join(MERGES[:-1])} or {MERGES[-1]}, got {merge!r}")
    return Tiling(_tile_hw(tiles), float(overlap), merge, not tiles_only)


def _tile_hw(tiles: int | str | Sequence[int]) -> tuple[int, int]:
    sides: list[Any] = []
    if isinstance(tiles, str) and re.fullmatch(r"\d{1,9}(x\d{1,9})?", tiles):
        sides = [int(side) for side in tiles.split("x")]
    elif isinstance(tiles, int) and not isinstance(tiles, bool):
        sides = [tiles]
    elif isinstance(tiles, tuple | list):
        sides = list(tiles)
    whole = all(isinstance(side, int) and side >= LEAST_SIDE for side in sides)
    if len(sides) not in (1, 2) or not whole:
        raise ValueError(
            f"{argument('tiles')} is the size of a tile in pixels, a side or HEIGHTxWIDTH, each at least {LEAST_SIDE}; "
            f"got {tiles!r}"
        )
    return sides[0], sides[-1]


def tile_options(task: Any, tiling: Tiling | None) -> dict[str, Any]:
    """Returns the arguments with which a task opens a model for tiles; none without tiles.

    Raises:
        ValueError: The task does not look at pictures in tiles.
    """
    if tiling is None:
        return {}
    if not task.takes_tiles:
        raise ValueError(
            f"{argument('tiles')} {tiling.size} has no effect on a model for {task.name}: only detectors look at "
            "pictures in tiles"
        )
    return {"tiling": tiling}


__all__ = [
    "LEAST_SIDE",
    "MERGE",
    "MERGES",
    "MOST_TILES",
    "OVERLAP",
    "Region",
    "Tiles",
    "Tiling",
    "tile_options",
    "tiling_of",
]
