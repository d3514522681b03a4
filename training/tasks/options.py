"""Rejection of options that have no effect on a task."""

from typing import Any

from ...data.argument_names import argument


def refuse_without_effect(kind: str, **options: Any) -> None:
    """Raises a `ValueError` if an option is given that has no effect on a kind of model."""
    if given := [f"{argument(name)} {value!r}" for name, value in options.items() if value is not None]:
        raise ValueError(f"{' and '.join(given)} has no effect on {kind}")


__all__ = ["refuse_without_effect"]
