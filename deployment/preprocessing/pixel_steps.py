"""Steps of an image processor that can be expressed as ONNX operations."""

from dataclasses import dataclass, replace
from typing import Any

from ...data.image_processing import RESAMPLING
from ...hub.exported.forms import BackendError

MODES = {"bilinear": "linear", "bicubic": "cubic"}  # names of the interpolations in ONNX
_MULTIPLE = 16  # of the sides that YOLOS' image processor makes, without saying so


@dataclass(frozen=True)
class PixelSteps:
    """Steps of an image processor.

    Args:
        shortest_edge: Length in pixels to which the shorter side is resized, the proportions kept; None if unused.
        resized_hw: Size (height, width) in pixels to which images are resized; None keeps the proportions.
        interpolation: "bilinear" or "bicubic".
        crop_hw: Size (height, width) in pixels of the central crop; None cuts nothing.
        mean: Mean of each channel that is subtracted, in levels.
        std: Standard deviation of each channel that is divided by, in levels.
        half_to_even: Whether a crop that is half a pixel off the middle is rounded to an even offset, as torchvision
            does; otherwise it is rounded down.
        longest_edge: Largest length in pixels of the longer side, for which the shorter side gives way; None if
            unused. Goes with `shortest_edge`.
        most_hw: Size (height, width) in pixels within which an image is made as large as it fits; None if unused.
        multiple: Number of pixels of which both sides are made multiples, by rounding down; 1 leaves them.
        antialias: Whether an image that is made smaller is smoothed.
    """

    shortest_edge: int | None
    resized_hw: tuple[int, int] | None
    interpolation: str
    crop_hw: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    half_to_even: bool = False
    longest_edge: int | None = None
    most_hw: tuple[int, int] | None = None
    multiple: int = 1
    antialias: bool = True

    @property
    def image_hw(self) -> tuple[int, int] | None:
        """Size (height, width) of the result; None where it depends on the image."""
        return self.crop_hw or self.resized_hw

    def variants(self) -> list["PixelSteps"]:
        """These steps, and for images of any size those of processors that do more than their settings say.

        YOLOS' makes both sides multiples of 16, and RF-DETR's does not smooth. ONNX Runtime (1.32) computes no bicubic
        resizing of uint8 without smoothing.
        """
        found = [self] if self.interpolation == "bicubic" else [self, replace(self, antialias=False)]
        if self.image_hw is None:
            found.insert(1, replace(self, multiple=_MULTIPLE))
        return found


def pixel_steps(processor: Any, any_size: bool = False) -> PixelSteps:
    """Steps of an image processor, stock or of timm.

    Args:
        processor: Image processor of a classifier or detector.
        any_size: Whether the model takes images of any size, as detectors do.

    Raises:
        BackendError: The processor has a step that the graph cannot express; the message names it.
    """
    name = type(processor).__name__
    if isinstance(timm := getattr(processor, "data_config", None), dict):
        steps = _timm_steps(timm, name)
    else:
        steps = _stock_steps(processor.to_dict(), name, any_size)
    if len(steps.mean) != 3:
        raise BackendError(f"preprocessing in the graph needs images of 3 channels, {name} has {len(steps.mean)}")
    if steps.image_hw is None and not any_size:
        raise BackendError(f"preprocessing in the graph needs one size of the model's images, {name} gives several")
    if steps.crop_hw is not None:
        least = (steps.shortest_edge, steps.shortest_edge) if steps.shortest_edge else steps.resized_hw
        if least is not None and any(side < cut for side, cut in zip(least, steps.crop_hw, strict=True) if side):
            raise BackendError(
                f"preprocessing in the graph does not pad: {name} resizes to {least[0]} x {least[1]} pixels and crops "
                f"{steps.crop_hw[0]} x {steps.crop_hw[1]}"
            )
    return steps


def _timm_steps(config: dict[str, Any], name: str) -> PixelSteps:
    _, height, width = config["input_size"]
    ratio = float(config.get("crop_pct") or 1.0)
    if config.get("crop_mode", "center") != "center" or height != width:
        raise BackendError(
            f"preprocessing in the graph takes timm's square central crop, {name} has {config.get('crop_mode')!r} of "
            f"{height} x {width}"
        )
    mean, std = (tuple(255 * float(value) for value in config[key]) for key in ("mean", "std"))
    return PixelSteps(
        int(height / ratio), None, _interpolation(config["interpolation"], name), (height, width), mean, std,
        half_to_even=True,
    )  # fmt: skip


def _stock_steps(values: dict[str, Any], name: str, any_size: bool) -> PixelSteps:
    size = {key: int(value) for key, value in (values.get("size") or {}).items() if value is not None}
    crop = values.get("crop_size") or {}
    _refuse_sizes(values, size, name, any_size)
    names = {number: text for text, number in RESAMPLING.items()}
    resample = values.get("resample")
    interpolation = _interpolation(names.get(int(resample), str(resample)) if resample is not None else "", name)
    factor = float(values.get("rescale_factor") or 1 / 255) if values.get("do_rescale") else 1.0
    mean, std = values.get("image_mean"), values.get("image_std")
    if not values.get("do_normalize") or mean is None or std is None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return PixelSteps(
        size.get("shortest_edge"),
        (size["height"], size["width"]) if "height" in size else None,
        interpolation,
        (int(crop["height"]), int(crop["width"])) if values.get("do_center_crop") else None,
        tuple(float(value) / factor for value in mean),
        tuple(float(value) / factor for value in std),
        longest_edge=size.get("longest_edge"),
        most_hw=(size["max_height"], size["max_width"]) if "max_height" in size else None,
    )


def _refuse_sizes(values: dict[str, Any], size: dict[str, int], name: str, any_size: bool) -> None:
    """Raises a `BackendError` for sizes that the graph does not make."""
    resizes = bool(values.get("do_resize"))
    kinds: list[set[str]] = [{"height", "width"}, {"shortest_edge"}]
    if any_size:
        kinds += [{"shortest_edge", "longest_edge"}, {"max_height", "max_width"}]
    # without a size to pad to, a detector's processor pads the smaller images of a batch, and a single one not at all
    pads = bool(values.get("do_pad")) and (not any_size or bool(values.get("pad_size")))
    if resizes and not pads and set(size) in kinds:
        return
    known = "to a height and width or to a shortest_edge" + (", with or without a longest_edge," if any_size else "")
    done = f"resizes to {size}" if resizes else "does not resize"
    raise BackendError(
        f"preprocessing in the graph resizes {known} and does not pad; {name} {done}{' and pads' if pads else ''}"
    )


def _interpolation(name: str, processor: str) -> str:
    if name not in MODES:
        raise BackendError(
            f"preprocessing in the graph resizes by {' or '.join(MODES)}, and {processor} by "
            f"{name or 'no named method'}"
        )
    return name


__all__ = ["MODES", "PixelSteps", "pixel_steps"]
