"""Box formats: their definition, conversion to corners, and detection from the data.

Shapes: N boxes, (N, 4); sizes (N, 2) are (width, height) in pixels of the image that each box is in.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Order = Literal["xywh", "xyxy", "cxcywh", "yxyx", "yxhw"]
Unit = Literal["pixels", "relative"]
ORDERS: tuple[Order, ...] = get_args(Order)
_SIDES: dict[Order, str] = {
    "xywh": "left, top, width, height",
    "xyxy": "left, top, right, bottom",
    "cxcywh": "centre, width, height",
    "yxyx": "top, left, bottom, right",
    "yxhw": "top, left, height, width",
}
UNITS: tuple[Unit, ...] = get_args(Unit)


@dataclass(frozen=True)
class BoxFormat:
    """Format of a box: the meaning and unit of its four numbers.

    Args:
        order: Meaning of the numbers: "xywh" left, top, width, height (COCO); "xyxy" left, top, right, bottom (Pascal
            VOC); "cxcywh" center x, center y, width, height (YOLO, DETR); "yxyx" and "yxhw" like "xyxy" and "xywh"
            with the axes swapped (TensorFlow).
        unit: Unit of the numbers: "pixels", or "relative" to the image's width and height.
    """

    order: Order = "xywh"
    unit: Unit = "pixels"

    def __post_init__(self) -> None:
        if self.order not in ORDERS or self.unit not in UNITS:
            raise ValueError(
                f"a box format is one of {', '.join(ORDERS)} in {' or '.join(UNITS)}, got {self.order!r} in "
                f"{self.unit!r}"
            )

    def __str__(self) -> str:
        return f"{self.order} {self.unit}"

    @property
    def words(self) -> str:
        """Description of the format for readers, such as "left, top, width, height in pixels"."""
        return f"{_SIDES[self.order]} {'in pixels' if self.unit == 'pixels' else 'relative to the image'}"

    @classmethod
    def parse(cls, text: str) -> "BoxFormat":
        """Parses text such as "xyxy" or "cxcywh relative"; the unit is pixels where none is named.

        Raises:
            ValueError: The text names no known format.
        """
        words = text.replace("_", " ").replace(",", " ").split()
        if not 1 <= len(words) <= 2:
            raise ValueError(f"a box format is an order and a unit, such as 'xywh pixels', got {text!r}")
        return cls(*words)  # type: ignore[arg-type]  # checked above

    def corners(self, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Converts boxes to (N, 4) fp64 corners: left, top, right, bottom in pixels; nothing is clipped."""
        values = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if self.order.startswith("y"):
            values = values[:, [1, 0, 3, 2]]
        first, second = values[:, :2], values[:, 2:]
        if self.order in ("xywh", "yxhw"):
            second = first + second
        elif self.order == "cxcywh":
            first, second = first - second / 2, first + second / 2
        corners = np.concatenate([first, second], axis=1)
        return corners if self.unit == "pixels" else corners * np.tile(np.asarray(sizes, np.float64), 2)


@dataclass(frozen=True)
class FormatGuess:
    """Format that was determined for the boxes of a split.

    Args:
        format: Format in which the boxes are read.
        usual: Format that is usual for the kind of data set, or that the user named.
        shares: Fraction of the boxes that lie within their images and have positive sides, by format tried.
        boxes: Number of boxes that were examined.
        rivals: Formats that fit equally well but would yield other boxes.
        contradicts: Whether the boxes are clearly in another format than the usual one.
    """

    format: BoxFormat
    usual: BoxFormat
    shares: dict[str, float]
    boxes: int
    rivals: tuple[str, ...] = ()
    contradicts: bool = False

    def __str__(self) -> str:
        tried = ", ".join(f"{name} {share:.1%}" for name, share in sorted(self.shares.items(), key=lambda i: -i[1]))
        return f"{self.format} (boxes that fit their images: {tried})" if self.boxes else f"{self.format} (no boxes)"


def fitting(boxes: np.ndarray, sizes: np.ndarray, form: BoxFormat) -> np.ndarray:
    """Whether each box has positive sides and lies within its image, (N,) bool.

    A box may reach beyond its image by one pixel or 0.5 % of the image's side, whichever is larger.
    """
    corners = form.corners(boxes, sizes)
    slack = np.maximum(1.0, 0.005 * sizes)
    positive = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    inside = (corners[:, :2] >= -slack).all(axis=1) & (corners[:, 2:] <= sizes + slack).all(axis=1)
    return np.asarray(positive & inside)


def guess_format(
    boxes: np.ndarray, sizes: np.ndarray, usual: BoxFormat, areas: np.ndarray | None = None
) -> FormatGuess:
    """Determines the format in which boxes fit their images.

    The usual format is kept while it fits nearly as well as any other. Another one is taken where it fits clearly
    better, or fits equally well and alone agrees with the areas.

    Args:
        boxes: Boxes (N, 4), finite.
        sizes: Image sizes (N, 2), (width, height) in pixels.
        usual: Format that is preferred.
        areas: Annotated areas (N,) in square pixels, NaN where unknown; width times height where annotations are
            boxes rather than masks.
    """
    if len(boxes) == 0:
        return FormatGuess(usual, usual, {}, 0)
    unit: Unit = "relative" if _looks_relative(boxes, sizes) else "pixels"
    forms = {order: BoxFormat(order, unit) for order in ORDERS}
    shares = {order: float(fitting(boxes, sizes, form).mean()) for order, form in forms.items()}
    # swapped axes fit equally well in square images, so they must be clearly better
    handicap = {order: share - (0.05 if order.startswith("y") else 0.0) for order, share in shares.items()}
    best = max(ORDERS, key=lambda order: (handicap[order], order == usual.order))
    chosen = usual.order
    if shares[best] >= 0.9 and handicap[best] > handicap[chosen] + 0.02:
        chosen = best
    agreement = {order: _area_agreement(boxes, sizes, form, areas) for order, form in forms.items()}
    witness = max(ORDERS, key=lambda order: (agreement[order], order == chosen))
    if agreement[witness] >= 0.95 > 0.5 > agreement[chosen] and shares[witness] >= shares[chosen] - 0.02:
        chosen = witness
    rivals = [
        str(forms[order])
        for order in ("xywh", "xyxy", "cxcywh")
        if order != chosen and shares[order] >= shares[chosen] - 0.02 and agreement[chosen] < 0.95
        and _differ(forms[order], forms[chosen], boxes, sizes)
    ]  # fmt: skip
    clear = unit != usual.unit or (len(boxes) >= 10 and shares[chosen] - shares[usual.order] >= 0.1)
    clear = clear or (chosen != usual.order and chosen == witness and agreement[witness] >= 0.95)
    named = {str(forms[order]): share for order, share in shares.items()}
    return FormatGuess(forms[chosen], usual, named, len(boxes), tuple(rivals), clear)


def _looks_relative(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether at least 98 % of the boxes have no number above 1.01, in images of more than a few pixels."""
    return bool((np.abs(boxes).max(axis=1) <= 1.01).mean() >= 0.98 and np.median(sizes) > 4)


def _area_agreement(boxes: np.ndarray, sizes: np.ndarray, form: BoxFormat, areas: np.ndarray | None) -> float:
    """Fraction of the known areas that equal width times height; 0 where most are unknown."""
    if areas is None or np.isfinite(areas).mean() < 0.5 or form.unit == "relative":
        return 0.0
    known = np.isfinite(areas) & (areas > 0)
    if not known.any():
        return 0.0
    corners = form.corners(boxes, sizes)
    product = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    return float((np.abs(product - areas)[known] <= 0.01 * areas[known] + 1).mean())


def _differ(one: BoxFormat, other: BoxFormat, boxes: np.ndarray, sizes: np.ndarray) -> bool:
    return bool((np.abs(one.corners(boxes, sizes) - other.corners(boxes, sizes)) > 1).any())


__all__ = ["ORDERS", "UNITS", "BoxFormat", "FormatGuess", "fitting", "guess_format"]
