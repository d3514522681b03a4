"""Runs cases one after the other in a process that has imported everything once; replaced where a case hangs."""

import contextlib
import faulthandler
import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import TRACEBACK, Case, Outcome

MEMORY = 6 * 2**30  # bytes of address space: a size that is not refused fails here, not in the machine
PROCESSES = 40  # children of one case
START_SECONDS = 600


def serve(root: Path, cases: list[Case]) -> None:
    """Answers the keys of cases from stdin with outcomes on stdout, both JSON lines."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from . import stock
    from .judging import outcome

    stock.settle()
    work = root / "cases"
    work.mkdir(exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    forks = _limit_children()
    log = (root / "hangs.log").open("a")
    print(json.dumps({"ready": True}), file=answers, flush=True)
    named = {case.key: case for case in cases}
    for line in sys.stdin:
        case = named[json.loads(line)]
        forks.clear()
        os.chdir(work)
        log.write(f"{case.key}\n")
        log.flush()
        faulthandler.dump_traceback_later(10 * case.seconds, file=log)
        found = outcome(case, work, root / "shared")
        faulthandler.cancel_dump_traceback_later()
        stock.tidy()
        print(json.dumps({"kind": found.kind, "detail": found.detail, "seconds": found.seconds}), file=answers,
              flush=True)  # fmt: skip


def _limit_children() -> list[int]:
    """Lets a case start some processes only, as a system's limit does, which does not bind the superuser."""
    fork, started = os.fork, []

    def limited() -> int:
        if len(started) >= PROCESSES:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(1)
        return fork()

    os.fork = limited
    return started


class Worker:
    """A process that runs cases, seen from outside.

    Args:
        root: Folder for everything that is made.
        arguments: Of `run.py`, so that it makes the same list of cases.
        environment: Variables of the process besides those of this one.
    """

    def __init__(self, root: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.root, self.arguments, self.environment = root, arguments, environment
        self.process: subprocess.Popen[str] | None = None

    def _start(self) -> bool:
        script = Path(__file__).with_name("run.py")
        self.log = (self.root / "worker.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, str(script), "--worker", str(self.root), *self.arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True,
            env=os.environ | self.environment,
        )  # fmt: skip
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=_read, args=(self.process.stdout, self.lines), daemon=True)
        self.reader.start()
        return self._line(START_SECONDS, START_SECONDS) is not None

    def run(self, case: Case) -> Outcome:
        """The outcome of a case; a process that dies or hangs is replaced."""
        if self.process is None and not any(self._start() for _ in range(3)):
            raise RuntimeError(f"the worker did not start; see {self.root / 'worker.log'}")
        assert self.process is not None
        assert self.process.stdin is not None
        print(json.dumps(case.key), file=self.process.stdin, flush=True)
        begun = time.perf_counter()
        line = self._line(case.seconds, 10 * case.seconds)
        if line:
            return Outcome(**json.loads(line))
        code = self.process.poll()
        why = f"the process ended with {code}" if code is not None else f"no answer within {case.seconds:.0f} s"
        self.close()
        return Outcome(TRACEBACK, why, round(time.perf_counter() - begun, 1))

    def _line(self, computing: float, waiting: float) -> str | None:
        """The next line; None where the process ended, or took more time, on the processor or on the clock."""
        assert self.process is not None
        begun, used = time.monotonic(), _computed(self.process.pid)
        while time.monotonic() - begun < waiting and _computed(self.process.pid) - used < computing:
            try:
                return self.lines.get(timeout=0.5)
            except queue.Empty:
                continue
        return None

    def close(self) -> None:
        """Ends the process and its children."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait(60)
            self.reader.join(60)
            for stream in (self.process.stdin, self.process.stdout, self.log):
                with contextlib.suppress(BrokenPipeError):  # of a line that the dead process did not take
                    stream.close()
            self.process = None


def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _computed(pid: int) -> float:
    """Seconds of processor time of a process and its ended children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def run_all(
    cases: list[Case], root: Path, arguments: list[str], environment: dict[str, str]
) -> Iterator[tuple[Case, Outcome]]:
    """Each case with its outcome."""
    worker = Worker(root, arguments, environment)
    try:
        for case in cases:
            yield case, worker.run(case)
    finally:
        worker.close()


__all__ = ["Worker", "run_all", "serve"]
