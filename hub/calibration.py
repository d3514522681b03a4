"""Temperature of a classifier that its training measured, for the weights and for the exported forms of them.

It lies in the `metrics.json` beside the weights. An exported form has it in its entry of `export.json`, unless it gives
other scores than the weights, as with int8 and with merged tokens, for which no temperature is fitted.
"""

import math
from pathlib import Path
from typing import Any

from .checkpoints import CheckpointError, locate, read_json
from .exported.exported_model import ExportedModel
from .exported.forms import RECORD

_SAME_SCORES = ("fp32", "bf16", "fp16")  # precisions whose scores are those of the weights, up to rounding
NOT_MEASURED = "no temperature was measured for this model"


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
    return _checked(read_json(file).get("calibration"), str(file)) if file.is_file() else None


def calibration_of(model: Any, source: str | Path) -> dict[str, Any] | None:
    """Reads the temperature of a model that was loaded: of its weights, or of the exported form that it is.

    Args:
        model: Model, as `load_any_model` returns it.
        source: Folder, file or Hub id that it was loaded from.

    Returns:
        What `read_calibration` returns.

    Raises:
        CheckpointError: The model is missing, or `metrics.json` or `export.json` is damaged.
    """
    if isinstance(model, ExportedModel):
        return _checked(model.record.get("calibration"), f"{model.source}/{RECORD}")
    return read_calibration(source)


def calibration_to_export(source: Path, precision: str, merged_tokens: int) -> dict[str, Any]:
    """Returns the entry `calibration` of a classifier's exported form: the temperature of the weights, if it holds.

    Args:
        source: Folder or file of the weights.
        precision: Precision of the form.
        merged_tokens: Number of tokens that the form merges in each layer.

    Returns:
        What `read_calibration` returns, or `temperature` None with the reason as `why_not`.

    Raises:
        CheckpointError: `metrics.json` is damaged.
    """
    if (found := read_calibration(source)) is None:
        return {"temperature": None, "why_not": NOT_MEASURED}
    if precision not in _SAME_SCORES or merged_tokens:
        what = "token merging" if merged_tokens else precision
        why = f"the temperature is that of the weights, and {what} changes the scores"
        return {"temperature": None, "why_not": why}
    return found


def _checked(found: Any, file: str) -> dict[str, Any] | None:
    if found is None:
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


__all__ = ["NOT_MEASURED", "calibration_of", "calibration_to_export", "read_calibration"]
