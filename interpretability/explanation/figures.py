"""Figure of images beside their maps, each with a legend: method, prediction, and what the colours stand for."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from .overlays import largest_drawn

_LINE = 46  # letters of a line above a map
_LONGEST = 130  # letters of a longer text that are shown
_SCALE_LINE = 30  # letters of a line beside the colours


@dataclass(frozen=True)
class Legend:
    """Text around a map.

    Args:
        title: Method and its options.
        lines: Lines below the title, such as the prediction with its probability.
        scale: Meaning of a value of the map.
        ends: Values that the first and the last colour stand for.
    """

    title: str
    lines: tuple[str, ...]
    scale: str
    ends: tuple[str, str]


def scale_ends(values: torch.Tensor) -> tuple[str, str]:
    """Values at the ends of the colours of a map (height, width), as `blend` draws it.

    Negative values are drawn like 0, and outliers like the largest value that has a colour of its own.

    Example:
        >>> scale_ends(torch.full((2, 2), 0.25))
        ('0', '0.25')
    """
    largest = float(largest_drawn(values))
    low = "0 or less" if bool((values < 0).any()) else "0"
    high = f"{max(largest, 0.0):.3g}"
    return low, f"{high} or more" if float(values.max()) > largest * 1.0005 else high


def explanation_figure(
    pictures: Sequence[Image.Image],
    overlays: Sequence[Image.Image],
    legends: Sequence[Legend],
    colormap: str = "viridis",
) -> Figure:
    """Plot of images beside their maps, one image per row; each map has its legend and colour bar."""
    texts = [[_wrapped(line, _LINE) for line in (legend.title, *legend.lines)] for legend in legends]
    height = 3 * pictures[0].height / pictures[0].width
    heights = [height + 0.25 + 0.16 * sum(text.count("\n") + 1 for text in lines) for lines in texts]
    figure = Figure(figsize=(7.6, sum(heights)), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(pictures), 2, squeeze=False, height_ratios=heights)
    for (left, right), picture, overlay, legend, lines in zip(panels, pictures, overlays, legends, texts, strict=True):
        for axes, image in ((left, picture), (right, overlay)):
            axes.imshow(image)
            axes.set_axis_off()
        right.set_title("\n".join(lines), fontsize=8, loc="left", parse_math=False)
        left.set_title("what the model sees", fontsize=8, loc="left")
        bar = figure.colorbar(ScalarMappable(cmap=colormap), ax=right, shrink=0.95, ticks=[0, 1])
        bar.ax.set_yticklabels(legend.ends, fontsize=7)
        scale, middle = _wrapped(legend.scale, _SCALE_LINE), bar.ax.transAxes
        bar.ax.text(1.4, 0.5, scale, transform=middle, fontsize=7, ha="left", va="center", rotation=90)
    return figure


def figure_picture(figure: Figure) -> Image.Image:
    """Draws a figure as an RGB image."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return Image.open(content).convert("RGB")


def drawable(name: str, otherwise: str) -> str:
    """Name in one line if the font of figures has all its letters, else another text."""
    letters = get_font(findfont(FontProperties())).get_charmap()
    line = " ".join(name.split())
    return line if all(ord(letter) in letters for letter in line) else otherwise


def _wrapped(text: str, width: int) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return "\n".join(textwrap.wrap(shown, width)) or shown


__all__ = ["Legend", "drawable", "explanation_figure", "figure_picture", "scale_ends"]
