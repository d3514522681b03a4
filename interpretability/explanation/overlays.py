"""Drawing of maps over images.

Shapes: height x width pixels.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

_ASPECT_TOLERANCE = 0.03
_OUTLIERS = 0.995  # quantile drawn as the largest value of a map, so that one patch does not hide all others


def as_picture(image: Any) -> Image.Image:
    """Converts a PIL image, or an array or tensor of bytes or of values in [0, 1], to an RGB image of PIL.

    Args:
        image: PIL image; or array or tensor (height, width), (height, width, 1 or 3) or (1 or 3, height, width).

    Raises:
        ValueError: The shape or the range of the values is wrong.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = image.detach().cpu().float().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    whole = (isinstance(image, torch.Tensor) and not image.is_floating_point()) or array.dtype == np.uint8
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"`image` must be (height, width, 3) or (3, height, width), got {tuple(array.shape)}")
    if not whole:
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"`image` must be bytes or lie in [0, 1], got values from {array.min():.3g} to {array.max():.3g}"
            )
        array = array * 255
    return Image.fromarray(np.repeat(array, 3 // array.shape[2], axis=2).round().astype(np.uint8))


def pixels_as_picture(pixels: torch.Tensor) -> Image.Image:
    """Image of normalised pixels (C, height, width): the first three channels, stretched to the full range."""
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    low, high = pixels.min(), pixels.max()
    return as_picture((pixels - low) / (high - low).clamp(min=1e-12))


def largest_drawn(values: torch.Tensor) -> torch.Tensor:
    """Value of a map (height, width) that gets the last colour; larger ones, which are outliers, get it too."""
    values = values.clamp(min=0)
    top = np.quantile(values.numpy(), _OUTLIERS)
    return values.max() if top <= 0 else torch.tensor(top)


def unit_map(values: torch.Tensor) -> torch.Tensor:
    """Scales a map (height, width) to [0, 1], with negative values set to 0 and large outliers clipped."""
    return (values.clamp(min=0) / largest_drawn(values).clamp(min=1e-30)).clamp(max=1).float()


def blend(values: torch.Tensor, picture: Image.Image, alpha: float = 0.6, colormap: str = "viridis") -> Image.Image:
    """Draws a map over a greyscale image of the same aspect ratio and any size.

    Args:
        values: Map (height, width).
        picture: Image to draw over.
        alpha: Opacity of the map at its maximum, in [0, 1].
        colormap: Name of a matplotlib colour map.

    Raises:
        ValueError: The aspect ratios differ, or `alpha` or `colormap` is invalid.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must lie in [0, 1], got {alpha!r}")
    height, width = values.shape
    if abs(picture.width * height / (picture.height * width) - 1) > _ASPECT_TOLERANCE:
        raise ValueError(
            f"the picture is {picture.height} x {picture.width} pixels and the map {height} x {width}: another aspect, "
            "so it shows more or less than the model saw; give the picture as it was cropped, or none"
        )
    if colormap not in mpl.colormaps:
        raise ValueError(f"`colormap` must be one of matplotlib's, such as 'viridis' or 'cividis', got {colormap!r}")
    unit = torch.nn.functional.interpolate(
        unit_map(values)[None, None], (picture.height, picture.width), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    colours = mpl.colormaps[colormap](unit)[..., :3]
    base = np.asarray(picture.convert("L"), dtype=np.float64)[..., None] / 255  # only the map has colour
    cover = alpha * (0.4 + 0.6 * unit)[..., None]
    return Image.fromarray(np.round(255 * ((1 - cover) * base + cover * colours)).astype(np.uint8))


__all__ = ["as_picture", "blend", "largest_drawn", "pixels_as_picture", "unit_map"]
