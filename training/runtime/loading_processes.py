"""Loading processes of a run: what signals do to them, and what is said when one dies."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class LoadingProcessError(RuntimeError):
    """A loading process died."""


def outlive_requests(worker: int) -> None:  # noqa: ARG001
    """Lets a loading process work on when a signal asks the whole run to stop; the main process ends it.

    Ctrl-C, `timeout` and schedulers send their signal to every process of a run. Were a loading process to end by it,
    the main process could not end its step. A second SIGTERM, as torch and the system send it, does end it.

    Args:
        worker: Its number, as `DataLoader` calls a `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _await_the_second)


def _await_the_second(signum: int, _frame: FrameType | None) -> None:
    signal.signal(signum, lambda number, _: os._exit(128 + number))


@contextmanager
def named_deaths(what_now: Callable[[], str] = str) -> Iterator[None]:
    """Says in one line that a loading process died, and what can be done.

    Args:
        what_now: Gives further text for the message, such as how the run goes on.

    Raises:
        LoadingProcessError: Instead of torch's `RuntimeError`.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not text.startswith("DataLoader worker (pid"):  # torch has no type for it (2.8 to 2.14)
            raise
        died = text.removeprefix("DataLoader worker ").splitlines()[0].strip().rstrip(".")
        raise LoadingProcessError(
            f"a loading process died {died}, often for lack of memory; fewer of them need less{what_now()}"
        ) from error


__all__ = ["LoadingProcessError", "named_deaths", "outlive_requests"]
