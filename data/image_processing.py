"""Image processor of a classifier, a stock one of transformers that is saved beside the weights, and its settings."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import BitImageProcessor, BitImageProcessorPil
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

BACKENDS = {"torchvision": BitImageProcessor, "pil": BitImageProcessorPil}
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


def build_image_processor(
    image_hw: tuple[int, int],
    *,
    crop_ratio: float = 0.875,
    mean: tuple[float, ...] | list[float] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, ...] | list[float] = IMAGENET_DEFAULT_STD,
    interpolation: str = "bicubic",
    keep_aspect: bool = True,
    backend: str = "torchvision",
) -> Any:
    """Builds the processor of the usual evaluation transform: resize, crop the centre, scale to [0, 1], normalise.

    Args:
        image_hw: Size (height, width) in pixels of the model's input.
        crop_ratio: Fraction of the resized image's side that the crop keeps, in (0, 1].
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].
        interpolation: Interpolation of resizing: "nearest", "lanczos", "bilinear" or "bicubic".
        keep_aspect: Whether to resize the shorter side (to its crop side / crop_ratio) and keep the proportions;
            False resizes height and width independently.
        backend: Library of the transforms: "torchvision", or "pil" where torchvision is missing.

    Returns:
        A `BitImageProcessor` of transformers, which resizes the shorter side and crops under both backends.

    Raises:
        ValueError: `crop_ratio`, `interpolation` or `backend` is out of its range.
    """
    if not 0 < crop_ratio <= 1:
        raise ValueError(f"`crop_ratio` must lie in (0, 1], got {crop_ratio!r}")
    if interpolation not in RESAMPLING:
        raise ValueError(f"`interpolation` must be one of {sorted(RESAMPLING)}, got {interpolation!r}")
    height, width = image_hw
    resized = [math.floor(side / crop_ratio) for side in image_hw]
    square = height == width
    size = {"shortest_edge": resized[0]} if keep_aspect and square else {"height": resized[0], "width": resized[1]}
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {sorted(BACKENDS)}, got {backend!r}")
    return BACKENDS[backend](
        do_resize=True,
        size=size,
        resample=Image.Resampling(RESAMPLING[interpolation]),
        do_center_crop=True,
        crop_size={"height": height, "width": width},
        do_rescale=True,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
        do_convert_rgb=True,
    )


@dataclass(frozen=True)
class PixelFormat:
    """Size and normalisation of a model's input.

    Args:
        image_hw: Size (height, width) of the input in pixels.
        mean: Mean of each channel that is subtracted, on the scale [0, 1].
        std: Standard deviation of each channel that is divided by, on the scale [0, 1].
    """

    image_hw: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pixel_format(processor: Any) -> PixelFormat:
    """Input format that a stock image processor of transformers, or its wrapper for timm, produces.

    Raises:
        ValueError: The processor states no size.
    """
    if isinstance(timm := getattr(processor, "data_config", None), dict):
        _, height, width = timm["input_size"]
        return PixelFormat((height, width), tuple(timm["mean"]), tuple(timm["std"]))
    values = processor.to_dict()
    size = (values.get("crop_size") if values.get("do_center_crop") else None) or values.get("size") or {}
    if "height" not in size and "shortest_edge" not in size:
        raise ValueError(f"{type(processor).__name__} states no size of the model's pixels, only {size}")
    height, width = (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
    mean, std = values.get("image_mean"), values.get("image_std")
    if not values.get("do_normalize", True) or mean is None or std is None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return PixelFormat((height, width), tuple(mean), tuple(std))


def resize_image_processor(processor: Any, image_hw: tuple[int, int]) -> Any:
    """Copy of a stock processor for another input size (height, width) in pixels, with the same crop ratio."""
    values = processor.to_dict()
    height, width = image_hw
    old = values["crop_size"] if values.get("do_center_crop") and values.get("crop_size") else values["size"]
    old_height, old_width = (old["height"], old["width"]) if "height" in old else (old["shortest_edge"],) * 2
    size = dict(values["size"])
    if "shortest_edge" in size and height == width:
        values["size"] = {"shortest_edge": round(size["shortest_edge"] * height / old_height)}
    else:
        rows, columns = (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
        values["size"] = {"height": round(rows * height / old_height), "width": round(columns * width / old_width)}
    if values.get("do_center_crop"):
        values["crop_size"] = {"height": height, "width": width}
    return type(processor).from_dict(values)


__all__ = [
    "BACKENDS",
    "RESAMPLING",
    "PixelFormat",
    "build_image_processor",
    "pixel_format",
    "resize_image_processor",
]
