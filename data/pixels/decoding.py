"""Decoding of images to uint8 tensors, of JPEGs at no larger size than is needed."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..images import decode_image


def decode_pixels(value: Any, name: str = "image", least: int | None = None) -> torch.Tensor:
    """Decodes an image to upright RGB, the same pixels as `decode_image`, as a tensor.

    Args:
        value: Image in any form that `decode_image` takes.
        name: Name of the image in messages.
        least: Pixels that the shorter side of a JPEG must keep; see `decode_image`.

    Returns:
        Pixels (3, height, width), uint8; each pixel's channels are neighbours in memory, as resizing is fastest on.

    Raises:
        BadImageError: The image cannot be decoded; see `decode_image`.
    """
    return as_pixels(decode_image(value, name, least))


def as_pixels(image: Image.Image | torch.Tensor) -> torch.Tensor:
    """Pixels (3, height, width), uint8, of an image of Pillow, converted to RGB; a tensor is returned as it is."""
    if isinstance(image, torch.Tensor):
        return image
    return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB"))).permute(2, 0, 1)


def as_picture(pixels: torch.Tensor) -> Image.Image:
    """RGB image of Pillow from pixels (3, height, width), uint8."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


__all__ = ["as_picture", "as_pixels", "decode_pixels"]
