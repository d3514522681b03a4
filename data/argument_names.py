"""Argument names in messages, spelled for Python or for the command line, and old names that are still accepted.

The same functions serve Python and the command line, where the argument `output` is the option `--output`. Messages
use the spelling of the caller; the command line sets its own with `typed_as`.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_TYPED: ContextVar[Mapping[str, str] | None] = ContextVar("typed argument names", default=None)


@contextmanager
def typed_as(names: Mapping[str, str]) -> Iterator[None]:
    """Context in which messages spell arguments as command-line options.

    Args:
        names: Command-line spelling of each argument, such as "--output", by its Python name.
    """
    token = _TYPED.set(names)
    try:
        yield
    finally:
        _TYPED.reset(token)


def argument(name: str) -> str:
    """Name of an argument in a message: `--output` on the command line, "`output`" elsewhere."""
    return (_TYPED.get() or {}).get(name, f"`{name}`")


def stated(**values: Any) -> str:
    """Arguments with their values, spelled as the caller would write them.

    On the command line `--resume --on-nonfinite skip`, elsewhere `resume=True, on_nonfinite='skip'`.
    """
    typed = _TYPED.get() or {}
    if not values.keys() <= typed.keys():
        return ", ".join(f"{name}={value!r}" for name, value in values.items())
    return " ".join(typed[name] if value is True else f"{typed[name]} {value}" for name, value in values.items())


def stated_field(name: str, value: Any) -> str:
    """Field of a recipe with its value, spelled as the caller would set it.

    On the command line `--set NAME=VALUE`, elsewhere the dictionary `values`.
    """
    return f"values={{{name!r}: {value!r}}}" if _TYPED.get() is None else f"--set {name}={value}"


def column_argument(name: str) -> str:
    """Argument of a data set, such as `label_column`, as a caller would set it: an option where the command has it.

    On the command line of a training without such an option `--set data.label_column=NAME`.
    """
    typed = _TYPED.get()
    return argument(name) if typed is None or name in typed else stated_field(f"data.{name}", "NAME")


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that accepts arguments by their old names too, each with a `FutureWarning` that states the new name.

    Args:
        **names: New name of each argument, by its old name.

    Raises:
        TypeError: A call of the decorated function gives both names of an argument.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"`{old}` is the old name of `{new}`: give {new} alone, got both")
                warnings.warn(f"`{old}` is now called `{new}`", FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


__all__ = ["argument", "column_argument", "renamed", "stated", "stated_field", "typed_as"]
