"""JSON files as plain data, and values in them that have the wrong type, refused with their place."""

import json
from pathlib import Path
from typing import Any

from ..sources import DataError


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: The file cannot be read or is no JSON; the message names it.
    """
    try:
        return json.loads(file.read_bytes())
    except RecursionError as error:
        raise DataError(f"{file} cannot be read: lists or objects are nested too deeply") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def is_text(value: Any) -> bool:
    """Whether a value is a text that can be written as UTF-8 and is no empty one; JSON may hold half of a character."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_id(value: Any) -> int | str | None:
    """A whole number or a text by which entries are known; None where a value is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # tables of pandas write 7 as 7.0
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return value if is_text(value) else None


__all__ = ["as_id", "is_text", "read_json"]
