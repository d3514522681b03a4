"""Progress reports of a run: a live bar in a terminal, plain lines elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...data.text.terminal_text import visible_lines

logger = logging.getLogger("vithub")


class Reporter(Protocol):
    """Receiver of a run's messages and progress."""

    def message(self, text: str) -> None:
        """Shows one line that stays."""

    def start(self, task: str, total: int | None, done: int = 0) -> None:
        """Begins a task of `total` parts, `done` of which are complete; None where their number is not known."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Counts `amount` parts of the task as complete; `figures` are numbers shown beside it."""

    def stop(self) -> None:
        """Ends the task."""


class QuietReporter:
    """Reporter that writes messages to the log at level INFO and shows no progress; for use from Python."""

    def message(self, text: str) -> None:
        """Writes one line to the log."""
        logger.info(text)

    def start(self, task: str, total: int | None, done: int = 0) -> None:
        """Does nothing."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Does nothing."""

    def stop(self) -> None:
        """Does nothing."""


class TerminalReporter:
    """Reporter with a bar, numbers and the time left if the output is a terminal; else a line every few seconds."""

    def __init__(self, console: Console | None = None, every: float = 15.0) -> None:
        self.console = console or Console(file=sys.stderr, highlight=False)
        self.every = every
        self._progress: Progress | None = None
        self._total: int | None = None
        self._task, self._done, self._begun, self._shown = "", 0, 0.0, 0.0
        self._at_start = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def message(self, text: str) -> None:
        """Prints one line above the bar."""
        (self._progress.console if self._progress else self.console).print(
            visible_lines(text), markup=False, soft_wrap=True
        )

    def start(self, task: str, total: int | None, done: int = 0) -> None:
        """Begins a bar in a terminal; elsewhere records when the task began."""
        self.stop()
        self._task, self._total, self._done, self._at_start = task, total, done, done
        self._begun = self._shown = time.monotonic()
        if self.console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
            self._progress = Progress(
                *columns, TextColumn("{task.fields[figures]}"), console=self.console, transient=True
            )
            self._progress.start()
            self._progress.add_task(task, total=total, completed=done, figures="")

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Moves the bar, or prints a line if `every` seconds have passed since the last."""
        self._done += amount
        text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], advance=amount, figures=text)
        elif time.monotonic() - self._shown >= self.every:
            self._shown = time.monotonic()
            self.console.print(self._line(text), markup=False, soft_wrap=True)

    def _line(self, text: str) -> str:
        if self._total is None:
            return f"{self._task} {self._done}  {text}"
        here = self._done - self._at_start
        seconds = (time.monotonic() - self._begun) / max(1, here) * (self._total - self._done)
        return f"{self._task} {self._done}/{self._total}  {text}  {time_left(seconds)}"

    def stop(self) -> None:
        """Removes the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _short(value: float) -> str:
    """Formats a value with four significant digits, so that a learning rate of 2e-05 is not shown as 0.0000."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def time_left(seconds: float) -> str:
    """Formats the seconds that are left, such as "3 min 20 s left"."""
    return f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Formats seconds as text with at most two units, such as "3 min 20 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(round(whole / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


__all__ = ["QuietReporter", "Reporter", "TerminalReporter", "duration", "time_left"]
