"""Detection of true and false where a recipe's field takes a number; pydantic would read them as 1 and 0."""

from typing import Any, get_args

from pydantic import BaseModel


def misplaced_boolean(model: type[BaseModel], content: Any, prefix: str = "") -> tuple[str, bool] | None:
    """Finds the first boolean in a field that takes none; returns its dotted name and value, or None.

    Args:
        model: Pydantic model that defines fields and sections.
        content: Nested plain data for `model`, not yet validated.
        prefix: Dotted name of the section, with a dot at its end; empty for the whole recipe.
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
