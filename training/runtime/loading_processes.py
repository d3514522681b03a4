"""Loading processes of a run: their response to signals, and the error raised when one dies."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class LoadingProcessError(RuntimeError):
    """Error raised when a loading process died."""


def outlive_requests(worker: int) -> None:  # noqa: ARG001
    """Keeps a loading process working when a signal asks the whole run to stop; the main process ends it.

    Ctrl-C, `timeout` and schedulers send their signal to every process of a run. If it ended the loading processes, the
    main process could not finish its step. A second SIGTERM, as sent by torch and the system, does end the process.

    Args:
        worker: Number of the loading process, passed by `DataLoader` to its `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _await_the_second)


def _await_the_second(signum: int, _frame: FrameType | None) -> None:
    signal.signal(signum, lambda number, _: os._exit(128 + number))


@contextmanager
def named_deaths(what_now: Callable[[], str] = str) -> Iterator[None]:
    """Replaces torch's error for a dead loading process by one line that says what can be done.

    Args:
        what_now: Function that returns further text for the message, such as how to continue the run.

    Raises:
        LoadingProcessError: A loading process died; replaces torch's `RuntimeError`.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not text.startswith("DataLoader worker (pid"):  # torch has no error type for it (2.8 to 2.14)
            raise
        died = text.removeprefix("DataLoader worker ").splitlines()[0].strip().rstrip(".")
        raise LoadingProcessError(
            f"a loading process died {died}, often for lack of memory; fewer of them need less{what_now()}"
        ) from error


__all__ = ["LoadingProcessError", "named_deaths", "outlive_requests"]
