"""Writing of results as valid JSON, which can express infinite numbers and NaN only as null."""

import json
import math
from typing import Any


def json_text(content: Any, **options: Any) -> str:
    """Converts plain data to JSON that every parser reads; infinite numbers and NaN become null.

    Args:
        content: Plain data: dictionaries, lists, tuples, strings, numbers, None.
        **options: Further arguments of `json.dumps`.

    Example:
        >>> json_text({"loss": float("nan"), "map": 0.5})
        '{"loss": null, "map": 0.5}'
    """
    return json.dumps(_finite(content), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {_finite_key(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_key(key: Any) -> Any:
    return str(key) if isinstance(key, float) and not math.isfinite(key) else key


__all__ = ["json_text"]
