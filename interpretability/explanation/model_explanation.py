"""Explanations of images in files or in memory: the function behind `model.explain`."""

from typing import Any

from torch import nn

from ...data.pixels.named_images import opened_images
from .explaining import explain
from .explanation import Explanation


def explain_images(model: nn.Module, processor: Any, images: Any, method: str = "auto", **options: Any) -> Explanation:
    """Shows where in images a model looks, as `explain` does for pixels.

    Args:
        model: Model as `explain` takes it.
        processor: Its image processor.
        images: Images as `opened_images` takes them.
        method: Name of the method; see `explain`.
        **options: Further arguments of `explain`, such as `target`.
    """
    opened, _ = opened_images(images)
    inputs = processor([image for _, image in opened], return_tensors="pt")
    if "pixel_mask" in inputs and not inputs["pixel_mask"].all():  # images of several sizes, padded to one
        options.setdefault("pixel_mask", inputs["pixel_mask"])
    return explain(model, inputs["pixel_values"], method, **options)


__all__ = ["explain_images"]
