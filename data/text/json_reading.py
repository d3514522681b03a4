"""Reading of JSON files, and checks of the values in them."""

import json
from pathlib import Path
from typing import Any

from ..sources import DataError


def read_json(file: Path) -> Any:
    """Content of a JSON file as plain data.

    Raises:
        DataError: The file cannot be read or is not JSON; the message names it.
    """
    try:
        return json.loads(file.read_bytes())
    except RecursionError as error:
        raise DataError(f"{file} cannot be read: lists or objects are nested too deeply") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def is_text(value: Any) -> bool:
    """Whether a value is a non-empty string without NUL that can be encoded as UTF-8; JSON may hold lone surrogates."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_id(value: Any) -> int | str | None:
    """Identifier, an integer or a non-empty string, from a value of a JSON file; None where it is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes 7 as 7.0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return value if is_text(value) else None


__all__ = ["as_id", "is_text", "read_json"]
