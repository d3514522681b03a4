"""Asking a run to stop between two steps, as a scheduler does before it takes the machine away."""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

logger = logging.getLogger("vithub")


class Interrupted(SystemExit):  # it is no error
    """A run that was asked to stop and has saved a checkpoint; exits with 128 + the signal, as shells do."""

    def __init__(self, signum: int, step: int, checkpoint: object) -> None:
        super().__init__(128 + signum)
        name = signal.Signals(signum).name
        self.message = f"stopped by {name} after step {step}; all of it is in {checkpoint}, --resume goes on"


class StopRequest:
    """While it is open, SIGTERM and SIGINT only set `signum`; a second SIGINT interrupts as usual.

    Signals reach the main thread alone; elsewhere it changes nothing.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signum = signum

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


__all__ = ["Interrupted", "StopRequest"]
