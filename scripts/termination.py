"""SIGTERM as an orderly end of a command, so that what is half written is removed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """The end of a command that was asked to stop; exits with 128 + the signal, as shells do."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.message = "ended by SIGTERM"


@contextmanager
def orderly_termination() -> Iterator[None]:
    """While it is open, SIGTERM raises `Terminated` in the main thread; elsewhere it changes nothing.

    A second SIGTERM is ignored: it would break off the removal of what is half written.
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
