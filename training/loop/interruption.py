"""Handling of requests to stop a run, as a scheduler sends before it takes the machine away."""

import os
import signal
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator

from ...data.argument_names import stated
from ..runtime.progress import Reporter
from .checkpoints import last_checkpoint


class Interrupted(SystemExit):  # not an error
    """Exit of a run that was asked to stop and has saved a checkpoint; its code is 128 + the signal, as in shells.

    Args:
        signum: Number of the signal.
        step: Number of steps made; None if the signal came outside of the training loop.
        checkpoint: Newest checkpoint of the run, or None.
    """

    def __init__(self, signum: int, step: int | None, checkpoint: object) -> None:
        super().__init__(128 + signum)
        name = signal.Signals(signum).name
        resume = stated(resume=True)
        if checkpoint is None:
            self.message = f"stopped by {name} before the first checkpoint; {resume} begins from the first step"
        elif step is None:
            self.message = f"stopped by {name}; the training so far is in {checkpoint}, {resume} goes on"
        else:
            self.message = f"stopped by {name} after step {step}; all of it is in {checkpoint}, {resume} goes on"


class _Handlers(ABC):
    """Context that replaces the handlers of SIGTERM and SIGINT.

    Python delivers signals to the main thread only; in other threads the context changes nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    @abstractmethod
    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        """Handles a signal."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class StopRequest(_Handlers):
    """Context in which SIGTERM and SIGINT only set `signum`; a second SIGINT interrupts as usual.

    A request that is still unanswered on exit is passed to the previous handlers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signum = 0

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signum = signum

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if error is None and self.signum:
            signum, self.signum = self.signum, 0
            signal.raise_signal(signum)


class StopAtOnce(_Handlers):
    """Context in which SIGTERM and SIGINT raise `Interrupted` wherever the run is: reading, evaluating or writing.

    Args:
        folder: Folder of the run's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.process = folder, os.getpid()

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a loading process inherits the handler when it is forked
            os._exit(128 + signum)
        raise Interrupted(signum, None, last_checkpoint(self.folder))


class EvaluationStoppedError(Exception):
    """Raised when a signal came during an evaluation."""


class InterruptibleReporter:
    """Reporter that forwards everything, and raises `EvaluationStoppedError` after a batch if a stop was requested.

    Args:
        reporter: Reporter to forward to.
        request: Stop request, checked after each batch.
    """

    def __init__(self, reporter: Reporter, request: StopRequest) -> None:
        self.reporter, self.request = reporter, request

    def message(self, text: str) -> None:
        """Forwards a line."""
        self.reporter.message(text)

    def start(self, task: str, total: int | None, done: int = 0) -> None:
        """Forwards the start of a task."""
        self.reporter.start(task, total, done)

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Forwards the progress, then checks for a request."""
        self.reporter.advance(amount, **figures)
        if self.request.signum:
            raise EvaluationStoppedError

    def stop(self) -> None:
        """Forwards the end of a task."""
        self.reporter.stop()


def agreed_signal(accelerator: Accelerator, request: StopRequest) -> int:
    """Returns the signal that any of the processes received, the same in all of them; 0 if none did."""
    asked = request.signum
    if accelerator.num_processes == 1:
        return asked
    got = accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum").item()
    return asked or (signal.SIGTERM if got else 0)


__all__ = [
    "EvaluationStoppedError",
    "Interrupted",
    "InterruptibleReporter",
    "StopAtOnce",
    "StopRequest",
    "agreed_signal",
]
