"""Result of `explain`: maps, with methods to draw, save and tabulate them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .figures import Legend, drawable, explanation_figure, scale_ends
from .methods import EXPLANATION_METHODS
from .overlays import as_picture, blend, pixels_as_picture


class Prediction(NamedTuple):
    """Most likely class of an image: index, label and probability in [0, 1]."""

    target: int
    label: str
    probability: float


@dataclass(frozen=True)
class Explanation:
    """Maps of how much each part of an image contributed to the model's decision.

    Shapes: B images of height x width pixels, h x w patches (or cells of a feature map).

    Args:
        maps: Maps (B, height, width), fp32 on the CPU, in the pixels of `pixel_values`; larger values mean a larger
            contribution. Negative values, which integrated gradients and occlusion give, count against the class.
        grid: Values (B, h, w) at the resolution of the method, fp32 on the CPU.
        method: Name of the method in `EXPLANATION_METHODS`.
        pixel_values: Normalised images (B, C, height, width) that were explained, fp32 on the CPU.
        target: Index of the explained class, one per image; None for a model without a head.
        labels: Names of these classes, or their numbers if the model has no names; None for a model without a head.
        probabilities: Probabilities of these classes, in [0, 1]; None for a model without a head.
        queries: Explained object queries, one per image; None except for a detector.
        layer: Requested layer, or None.
        head: Requested attention head, or None.
        token: Requested token, or None.
        predictions: Most likely class of each image, or of the explained query of a detector; None for a model without
            a head.
    """

    maps: torch.Tensor
    grid: torch.Tensor
    method: str
    pixel_values: torch.Tensor
    target: tuple[int, ...] | None = None
    labels: tuple[str, ...] | None = None
    probabilities: tuple[float, ...] | None = None
    queries: tuple[int, ...] | None = None
    layer: int | None = None
    head: int | None = None
    token: int | str | None = None
    predictions: tuple[Prediction, ...] | None = None

    def __len__(self) -> int:
        return len(self.maps)

    def overlay(self, image: Any = None, index: int = 0, *, alpha: float = 0.6, colormap: str = "viridis") -> Any:
        """Draws one map over its image.

        Args:
            image: Image as cropped for the model, in any resolution: a PIL image, or an array or tensor
                (height, width, 3) or (3, height, width), of bytes or in [0, 1]. None means `pixel_values`, stretched to
                the full range.
            index: Index of the map, below B; negative values count from the end.
            alpha: Opacity of the map at its maximum, in [0, 1]; 0.6 by default.
            colormap: Name of a matplotlib colour map.

        Returns:
            RGB image of PIL, of the size of `image`.

        Raises:
            ValueError: The aspect ratios of image and map differ, so that the image shows another part than the model
                saw; or another argument is out of range.
            IndexError: There is no such map.
        """
        self._check_index(index)
        picture = self.picture(index) if image is None else as_picture(image)
        return blend(self.maps[index], picture, alpha, colormap)

    def picture(self, index: int = 0) -> Any:
        """Image that the model saw, as a PIL image: `pixel_values` stretched to the full range."""
        self._check_index(index)
        return pixels_as_picture(self.pixel_values[index])

    def _check_index(self, index: int) -> None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must lie in 0 to {len(self) - 1}, got {index}")

    def title(self, index: int = 0) -> str:
        """Description of an explanation in one line: label, probability, method and options."""
        self._check_index(index)
        parts = []
        if self.labels is not None and self.probabilities is not None:
            parts.append(f"{self.labels[index]} ({self.probabilities[index]:.0%})")
        parts.append(self.method)
        parts += self._options()
        if self.queries is not None:
            parts.append(f"query {self.queries[index]}")
        return " · ".join(parts)

    def _options(self) -> list[str]:
        options = {"token": self.token, "layer": self.layer, "head": self.head}
        return [f"{name} {value}" for name, value in options.items() if value is not None]

    def legend(self, index: int = 0) -> Legend:
        """Text around a drawn map: method, prediction, explained class, and what the colours stand for."""
        self._check_index(index)
        method = EXPLANATION_METHODS[self.method]
        lines = []
        if self.predictions is None or self.labels is None or self.probabilities is None or self.target is None:
            lines.append("no prediction: the model has no classes")
        else:
            found = self.predictions[index]
            asked = "" if self.queries is None else f" of query {self.queries[index]}"
            lines.append(f"prediction{asked}: {_drawn(found.label, found.target)} ({found.probability:.1%})")
            if found.target != self.target[index]:
                explained = _drawn(self.labels[index], self.target[index])
                lines.append(f"explained: {explained} ({self.probabilities[index]:.1%})")
        return Legend(
            " · ".join([method.title, *self._options()]), tuple(lines), method.scale, scale_ends(self.maps[index])
        )

    def save(self, path: str | Path, images: Sequence[Any] | None = None) -> Path:
        """Plots each image beside its map, one image per row, with a legend each, and returns the path.

        Args:
            path: File to write in a format of matplotlib, such as .png, .jpg, .pdf or .svg; its folder must exist.
            images: Images as cropped for the model, one per map, in a form that `overlay` accepts; None uses
                `pixel_values`.

        Raises:
            ValueError: The format is unknown, or the number of images differs from the number of maps.
        """
        if images is not None and len(images) != len(self):
            raise ValueError(f"`images` must be one per map ({len(self)}), got {len(images)}")
        pictures = [self.picture(i) if images is None else as_picture(images[i]) for i in range(len(self))]
        overlays = [self.overlay(picture, i) for i, picture in enumerate(pictures)]
        figure = explanation_figure(pictures, overlays, [self.legend(i) for i in range(len(self))])
        known = sorted(figure.canvas.get_supported_filetypes())
        path = Path(path)
        if path.suffix.lower().removeprefix(".") not in known:
            raise ValueError(f"`path` must end in one of {', '.join('.' + name for name in known)}, got {path.name!r}")
        figure.savefig(path)
        return path

    def to_dataframe(self) -> Any:
        """Values of the grid as a pandas data frame, one row per cell.

        The columns are `image`, `method`, `target`, `label` (None without a head), `row`, `column`, `top`, `left`,
        `bottom`, `right` (edges of the cell in pixels of the model's input; all cells have the same size) and `value`.
        """
        import pandas as pd

        _, rows, columns = self.grid.shape
        height, width = self.maps.shape[1:]
        image, row, column = (
            index.flatten() for index in torch.meshgrid(*map(torch.arange, self.grid.shape), indexing="ij")
        )
        images = image.tolist()
        return pd.DataFrame(
            {
                "image": images,
                "method": self.method,
                "target": [None if self.target is None else self.target[i] for i in images],
                "label": [None if self.labels is None else self.labels[i] for i in images],
                "row": row.numpy(),
                "column": column.numpy(),
                "top": (row * height / rows).numpy(),
                "left": (column * width / columns).numpy(),
                "bottom": ((row + 1) * height / rows).numpy(),
                "right": ((column + 1) * width / columns).numpy(),
                "value": self.grid.flatten().numpy(),
            }
        )


def _drawn(label: str, target: int) -> str:
    return drawable(label, f"class {target}")


__all__ = ["Explanation", "Prediction"]
