"""Types and entries shared by all tasks' predictions of single images."""

from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image

from ...data.images import BadImageError

OpenedImages = Iterable[tuple[str, Image.Image | BadImageError]]  # names, and images or the errors in their place
PreparedImages = Iterable[tuple[str, Image.Image | torch.Tensor | BadImageError]]  # images, or their pixels already


def bad_prediction(name: str, error: BadImageError) -> dict[str, Any]:
    """Makes the entry of an image that cannot be decoded, without predictions."""
    return {"image": name, "predictions": [], "error": str(error)}


__all__ = ["OpenedImages", "PreparedImages", "bad_prediction"]
