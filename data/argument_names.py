"""Names of arguments: as messages write them for whoever stated them, and old ones that are still taken.

One function serves Python and the command line. `output` of the one is `--output` of the other, and a message names
what the person at hand can state: the command line tells its spelling with `typed_as`.
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
    """Lets messages name arguments as a command line has them.

    Args:
        names: What is typed, such as "--output", by the argument's name in Python.
    """
    token = _TYPED.set(names)
    try:
        yield
    finally:
        _TYPED.reset(token)


def argument(name: str) -> str:
    """An argument's name in a message: `--output` on the command line, "`output`" elsewhere."""
    return (_TYPED.get() or {}).get(name, f"`{name}`")


def stated(**values: Any) -> str:
    """Arguments with values as somebody would state them.

    On the command line `--resume --on-nonfinite skip`, elsewhere `resume=True, on_nonfinite='skip'`.
    """
    typed = _TYPED.get() or {}
    if not values.keys() <= typed.keys():
        return ", ".join(f"{name}={value!r}" for name, value in values.items())
    return " ".join(typed[name] if value is True else f"{typed[name]} {value}" for name, value in values.items())


def stated_field(name: str, value: Any) -> str:
    """A recipe's field with a value as somebody would state it: `--set NAME=VALUE`, or the dictionary `values`."""
    return f"values={{{name!r}: {value!r}}}" if _TYPED.get() is None else f"--set {name}={value}"


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function take arguments by their old names too, each with a `FutureWarning` that says the new one.

    Args:
        **names: The new name by the old one.

    Raises:
        TypeError: A call of the function gives both names of an argument.
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


__all__ = ["argument", "renamed", "stated", "stated_field", "typed_as"]
