"""What `explain` returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .overlays import as_picture, blend, explanation_figure, pixels_as_picture


@dataclass(frozen=True)
class Explanation:
    """Where in each image lies what the model decided by.

    Shapes: B images of height x width pixels, h x w patches (or cells of features).

    Args:
        maps: (B, height, width), fp32 on the CPU, in the pixels of `pixel_values`: larger where it matters more.
            Negative values, which integrated gradients and occlusion give, speak against the class.
        grid: (B, h, w), the same as the method computed it, fp32.
        method: Its name in `EXPLANATION_METHODS`.
        pixel_values: (B, C, height, width), what the model saw, fp32 on the CPU.
        target: The class of each image that is explained; None of a model without a head.
        labels: Their names; numbers where the model names none.
        probabilities: Of these classes.
        queries: The object query of each image; None except of a detector.
        layer: As asked for.
        head: As asked for.
        token: As asked for.
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

    def __len__(self) -> int:
        return len(self.maps)

    def overlay(self, image: Any = None, index: int = 0, *, alpha: float = 0.6, colormap: str = "viridis") -> Any:
        """One map over its picture.

        Args:
            image: What the model saw, in any resolution: a PIL image, an array or a tensor (height, width, 3) or
                (3, height, width), of bytes or in [0, 1]. None means `pixel_values`, stretched to the full range.
            index: Which of the B maps.
            alpha: How strongly the map covers the picture where it is largest, in [0, 1].
            colormap: Of matplotlib.

        Returns:
            A PIL image, RGB, as large as `image`.

        Raises:
            ValueError: The image has another aspect than the map, so that it shows another part than the model saw.
            IndexError: There is no such map.
        """
        self._check_index(index)
        picture = self.picture(index) if image is None else as_picture(image)
        return blend(self.maps[index], picture, alpha, colormap)

    def picture(self, index: int = 0) -> Any:
        """What the model saw, as a PIL image: `pixel_values` stretched to the full range."""
        self._check_index(index)
        return pixels_as_picture(self.pixel_values[index])

    def _check_index(self, index: int) -> None:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must lie in 0 to {len(self) - 1}, got {index}")

    def title(self, index: int = 0) -> str:
        """What was explained and how, in a line."""
        self._check_index(index)
        parts = []
        if self.labels is not None and self.probabilities is not None:
            parts.append(f"{self.labels[index]} ({self.probabilities[index]:.0%})")
        parts.append(self.method)
        options = {"token": self.token, "layer": self.layer, "head": self.head}
        parts += [f"{name} {value}" for name, value in options.items() if value is not None]
        if self.queries is not None:
            parts.append(f"query {self.queries[index]}")
        return " · ".join(parts)

    def save(self, path: str | Path, images: Sequence[Any] | None = None) -> Path:
        """Writes each picture beside its overlay, one image per row, and returns the path.

        Args:
            path: Ends in .png, .jpg, .pdf, .svg or what else matplotlib writes; its folder exists.
            images: What the model saw, as `overlay` takes it, one per map.

        Raises:
            ValueError: No such format, or another number of images.
        """
        if images is not None and len(images) != len(self):
            raise ValueError(f"`images` must be one per map ({len(self)}), got {len(images)}")
        pictures = [self.picture(i) if images is None else as_picture(images[i]) for i in range(len(self))]
        overlays = [self.overlay(picture, i) for i, picture in enumerate(pictures)]
        figure = explanation_figure(pictures, overlays, [self.title(i) for i in range(len(self))])
        known = sorted(figure.canvas.get_supported_filetypes())
        path = Path(path)
        if path.suffix.lower().removeprefix(".") not in known:
            raise ValueError(f"`path` must end in one of {', '.join('.' + name for name in known)}, got {path.name!r}")
        figure.savefig(path)
        return path

    def to_dataframe(self) -> Any:
        """The grid as a pandas data frame, one row per cell.

        Columns: `image`, `method`, `target`, `label` (None without a head), `row`, `column`, `top`, `left`, `bottom`,
        `right` (in pixels of the model's input, which a cell covers in equal parts) and `value`.
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


__all__ = ["Explanation"]
