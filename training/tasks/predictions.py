"""What every task's predictions of single images have in common."""

from collections.abc import Iterable
from typing import Any

from PIL import Image

from ...data.images import BadImageError

OpenedImages = Iterable[tuple[str, Image.Image | BadImageError]]  # names, and images or what is wrong with them


def bad_prediction(name: str, error: BadImageError) -> dict[str, Any]:
    """What stands for the predictions of an image that cannot be decoded."""
    return {"image": name, "predictions": [], "error": str(error)}


__all__ = ["OpenedImages", "bad_prediction"]
