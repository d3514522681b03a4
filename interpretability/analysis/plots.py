"""Figures for papers: one look for all, light or dark, in colours that the colour-blind can tell apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 300
FORMATS = (".png", ".pdf", ".svg")
COLUMN, PAGE = 3.4, 7.0  # inches: one column of a paper, and its whole width
COLOR_MAP = "cividis"  # of quantities; even in lightness under every kind of colour vision (Nunez 2018)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")  # beside colours, so that print in grey can be read


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Args:
        background: Of the whole figure.
        ink: Of text and axes.
        faint: Of guides.
        colors: Of series, at least 3:1 in contrast to the background (WCAG 1.4.11); after Okabe and Ito.
    """

    background: str
    ink: str
    faint: str
    colors: tuple[str, ...]

    def settings(self) -> Any:
        """As matplotlib's settings."""
        ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
        return {
            **dict.fromkeys(ink, self.ink),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), self.background),
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "pdf.fonttype": 42,  # letters stay letters
            "svg.fonttype": "none",
        }


THEMES = {
    "light": Theme("#FFFFFF", "#1A1A1A", "#767676", ("#0072B2", "#D55E00", "#009E73", "#C2649A", "#1A1A1A", "#6E5A00")),
    "dark": Theme("#121212", "#EDEDED", "#8C8C8C", ("#56B4E9", "#E69F00", "#00B88A", "#E58BC3", "#FFFFFF", "#F0E442")),
}


@contextmanager
def paper_figure(
    path: str | Path, width: float = COLUMN, height: float = 2.6, theme: str = "light"
) -> Iterator[tuple[Figure, Theme]]:
    """A figure to draw into; it is written when the block ends without an error.

    Args:
        path: A .png (300 dots per inch), .pdf or .svg to write; missing folders are made.
        width: Inches.
        height: Inches.
        theme: "light" or "dark".

    Raises:
        ValueError: Another theme or kind of file.
    """
    path = Path(path)
    if theme not in THEMES:
        raise ValueError(f"`theme` must be one of {list(THEMES)}, got {theme!r}")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"`path` must end in one of {', '.join(FORMATS)}, got {str(path)!r}")
    with mpl.rc_context(THEMES[theme].settings()):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure, THEMES[theme]
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def series_style(theme: Theme, number: int) -> dict[str, Any]:
    """Colour and marker of the series with this number; the pairs repeat after 30."""
    return {"color": theme.colors[number % len(theme.colors)], "marker": MARKERS[number % len(MARKERS)]}


def tile(pictures: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Pictures (n, h, w, 3) or (n, h, w) as one, row by row, with NaN between and after them."""
    count, height, width, *channels = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *channels), np.nan)
    for number, picture in enumerate(pictures):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


__all__ = [
    "COLOR_MAP",
    "COLUMN",
    "DPI",
    "FORMATS",
    "MARKERS",
    "PAGE",
    "THEMES",
    "Theme",
    "paper_figure",
    "series_style",
    "tile",
]
