"""Common style of all plots, for papers: light or dark, in colours that colour-blind readers can tell apart."""

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
COLOR_MAP = "cividis"  # for quantities; perceptually uniform for every kind of colour vision (Nunez 2018)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")  # so that series can also be told apart in greyscale


@dataclass(frozen=True)
class Theme:
    """Colours of a plot.

    Args:
        background: Colour of the background.
        ink: Colour of text and axes.
        faint: Colour of reference lines.
        colors: Colours of series, with a contrast to the background of at least 3:1 (WCAG 1.4.11); after Okabe and Ito.
    """

    background: str
    ink: str
    faint: str
    colors: tuple[str, ...]

    def settings(self) -> Any:
        """Matplotlib settings (rcParams) of the theme."""
        ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
        return {
            **dict.fromkeys(ink, self.ink),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), self.background),
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "pdf.fonttype": 42,  # TrueType, so that text stays text
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
    """Yields a matplotlib figure to draw into, and its theme; the file is written if the block ends without an error.

    Args:
        path: A .png (300 dots per inch), .pdf or .svg file to write; missing folders are made.
        width: Width of the figure in inches; one column of a paper (3.4) by default.
        height: Height of the figure in inches; 2.6 by default.
        theme: "light" or "dark".

    Raises:
        ValueError: The theme or the kind of file is unknown.
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
    """Colour and marker of a series by its number; the combinations repeat after 30."""
    return {"color": theme.colors[number % len(theme.colors)], "marker": MARKERS[number % len(MARKERS)]}


def tile(pictures: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Arranges images (n, h, w, 3) or (n, h, w) in one image, row by row, with NaN between and after them."""
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
