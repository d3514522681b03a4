"""Temperature of a classifier that its training measured, read from the `metrics.json` beside its weights."""

import math
from pathlib import Path
from typing import Any

from .checkpoints import CheckpointError, locate, read_json


def read_calibration(
    source: str | Path, revision: str | None = None, token: str | None = None
) -> dict[str, Any] | None:
    """Reads the temperature by which a classifier's logits are divided for calibrated probabilities.

    Args:
        source: Folder, file or Hub id of the model.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.

    Returns:
        Dictionary with `temperature` (above 0), `fitted_on` (name of a split) and `images` (their number); None if none
        was measured.

    Raises:
        CheckpointError: The model is missing, or `metrics.json` is damaged.
    """
    file = locate(source, revision, token) / "metrics.json"
    if not file.is_file() or (found := read_json(file).get("calibration")) is None:
        return None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: calibration must be an object, got {type(found).__name__}")
    if found.get("temperature") is None:
        return None
    temperature, split, images = (found.get(name) for name in ("temperature", "fitted_on", "images"))
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise CheckpointError(f"{file}: calibration.temperature must be a number above 0, got {temperature!r}")
    if not isinstance(split, str) or isinstance(images, bool) or not isinstance(images, int):
        raise CheckpointError(
            f"{file}: calibration must name the split (fitted_on) and its images, got {split!r} and {images!r}"
        )
    return {"temperature": float(temperature), "fitted_on": split, "images": images}


__all__ = ["read_calibration"]
