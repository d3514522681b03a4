"""Handling of SIGTERM as an orderly end of a command, so that half-written files are removed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """Exit of a command that was asked to stop; its code is 128 + the signal, as in shells."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.message = "ended by SIGTERM"


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Context in which SIGTERM raises `Terminated` in the main thread; in other threads it changes nothing.

    A second SIGTERM is ignored, since it would interrupt the removal of half-written files.
    """

    def end(_signum: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["Terminated", "orderly_termination"]
