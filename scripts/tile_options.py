"""Options of `predict` and `evaluate` for looking at large pictures in tiles."""

from typing import Annotated

import typer

Tiles = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE|HEIGHTxWIDTH",
        help="look at larger pictures in tiles of so many pixels too, with a detector  [default: none]",
    ),
]
TileOverlap = Annotated[
    float | None, typer.Option(help="least overlap of tiles as a share of a tile, below 1  [default: 0.2]")
]
TileMerge = Annotated[
    str | None,
    typer.Option(help="of boxes of several tiles: nmm-ios, nmm-iou, nms-ios or nms-iou  [default: nmm-ios]"),
]
TilesOnly = Annotated[bool, typer.Option("--tiles-only", help="with --tiles: leave out the picture as a whole")]

__all__ = ["TileMerge", "TileOverlap", "Tiles", "TilesOnly"]
