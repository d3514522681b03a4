"""Refusal of options that do nothing for a task."""

from typing import Any

from ...data.argument_names import argument


def refuse_without_effect(kind: str, **options: Any) -> None:
    """Raises a `ValueError` where an option is given that does nothing for a kind of model."""
    if given := [f"{argument(name)} {value!r}" for name, value in options.items() if value is not None]:
        raise ValueError(f"{' and '.join(given)} has no effect on {kind}")


__all__ = ["refuse_without_effect"]
