"""Finds true and false where a recipe's field takes a number, which pydantic would read as 1 and 0."""

from typing import Any, get_args

from pydantic import BaseModel


def misplaced_boolean(model: type[BaseModel], content: Any, prefix: str = "") -> tuple[str, bool] | None:
    """The first boolean in a field that takes none, as its dotted name and the value.

    Args:
        model: Fields and sections by name.
        content: Nested plain data for it, not yet checked.
        prefix: Dotted name of the section, with a dot at its end.
    """
    if not isinstance(content, dict):
        return None
    for name, info in model.model_fields.items():
        value, kind = content.get(name), info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if found := misplaced_boolean(kind, value, f"{prefix}{name}."):
                return found
        elif not _takes_booleans(kind):
            values = value if isinstance(value, list | tuple) else [value]
            if (wrong := next((part for part in values if isinstance(part, bool)), None)) is not None:
                return prefix + name, wrong
    return None


def _takes_booleans(kind: Any) -> bool:
    """Whether a type has `bool` or `Any` among its parts."""
    return kind in (bool, Any) or any(_takes_booleans(part) for part in get_args(kind))


__all__ = ["misplaced_boolean"]
