"""Calls of the package as a person makes them, within this process."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .case import CommandError


def command(*words: Any) -> str:
    """Runs a `vithub` command and returns what it wrote to stdout.

    Raises:
        CommandError: Its exit code is not 0.
    """
    from vithub.scripts.command_line import app, run

    arguments = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in words]
    return captured(lambda: run(lambda: app(arguments)))


@contextlib.contextmanager
def warned() -> Iterator[io.StringIO]:
    """What is logged meanwhile, from warnings on, as a person sees it on stderr."""
    told = io.StringIO()
    handler, logger = logging.StreamHandler(told), logging.getLogger("vithub")
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


def captured(call: Callable[[], int]) -> str:
    """What a command writes to stdout; `call` returns its exit code.

    Raises:
        CommandError: The code is not 0.
    """
    # surrogateescape: as a terminal of a C locale, so that file names that are not UTF-8 can be printed
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape", write_through=True) for _ in range(2))
    argv, columns = sys.argv, os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "200"
    sys.argv = ["vithub"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), warnings.catch_warnings():
            code = call()
    finally:
        sys.argv = argv
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    said, told = (stream.buffer.getvalue().decode("utf-8", "backslashreplace") for stream in (out, errors))
    if code:
        raise CommandError(code, told if told.strip() else said)
    return said


__all__ = ["captured", "command", "warned"]
