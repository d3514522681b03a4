"""Checks of the values in `preprocessor_config.json`: wrong ones would make other pixels without any error."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from .checkpoints import CheckpointError, read_json, wrong_value

LARGEST_SIDE = 8192  # pixels; an image of this size takes 800 MB as numbers
_LARGEST_PIXEL = 65535
_SIZES = ("size", "crop_size", "pad_size", "input_size")


def saved_processor(folder: Path) -> Any:
    """Loads the image processor of a folder; code beside it is never run.

    Raises:
        CheckpointError: `preprocessor_config.json` has a wrong value, or is of no processor that transformers has.
    """
    file = folder / "preprocessor_config.json"
    check_processor_settings(file, read_json(file))
    try:
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged field lets transformers raise errors of any kind
        raise CheckpointError(
            f"{file} gives no usable image processor: {' '.join(str(error).split())[:300]}"
        ) from error


def check_processor_settings(file: Path, content: dict[str, Any]) -> None:
    """Checks the fields of an image processor that decide on its pixels; a field may be missing or null.

    Args:
        file: `preprocessor_config.json`, for messages.
        content: Its content.

    Raises:
        CheckpointError: A value is of the wrong type or out of its range; the message names the file and the field.
    """
    for name, value in content.items():
        if value is None:
            continue
        if name.startswith("do_") and not isinstance(value, bool):
            raise wrong_value(file, name, "true or false", value)
        if name in _SIZES:
            _check_size(file, name, value)
    mean, std, factor = (content.get(name) for name in ("image_mean", "image_std", "rescale_factor"))
    if mean is not None and not all(_is_number(part) and 0 <= part <= _LARGEST_PIXEL for part in _parts(mean)):
        raise wrong_value(file, "image_mean", "the mean of each channel, from 0 on", mean)
    if std is not None and not all(_is_number(part) and 0 < part <= _LARGEST_PIXEL for part in _parts(std)):
        raise wrong_value(file, "image_std", "the standard deviation of each channel, above 0", std)
    if factor is not None and not (_is_number(factor) and 0 < factor <= 1):
        raise wrong_value(file, "rescale_factor", "a number above 0 and at most 1, such as 1/255", factor)
    resample = content.get("resample")
    if resample is not None and not (type(resample) is int and 0 <= resample <= 5):
        raise wrong_value(file, "resample", "a number of Pillow's filters, 0 to 5", resample)


def _check_size(file: Path, name: str, value: Any) -> None:
    sides = list(value.values()) if isinstance(value, dict) else _parts(value)
    # timm and older processors state a triple (channels, height, width) or a single number
    if not sides or not all(side is None or (type(side) is int and 1 <= side <= LARGEST_SIDE) for side in sides):
        raise wrong_value(file, name, f"whole numbers of pixels from 1 to {LARGEST_SIDE}", value)


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["LARGEST_SIDE", "check_processor_settings", "saved_processor"]
