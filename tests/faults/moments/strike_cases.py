"""Each kind of fault: how it strikes a job, how the job has to end then, and what its message has to name."""

import contextlib
import io
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from ..calling import command
from ..case import CommandError
from . import strikes
from .jobs import Job, Training
from .strikes import WRITES, Watch

NO_SPACE = r"No space left on device|disk is full"
# What a message has to say of each fault that is an error.
CAUSES = {
    "full disk": NO_SPACE,
    "small disk": NO_SPACE,
    "largest file": r"File too large",
    "read-only folder": r"Permission denied|cannot write",
    "unreadable file": r"Input/output error|\[Errno 5\]",
    "dead loading process": r"a loading process died",
}
SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
DAMAGES = ("truncated checkpoint", "flipped bit in a checkpoint")
KINDS = (*SIGNALS, *CAUSES, "second run", *DAMAGES)
SECONDS = r"is being (trained in|written) by process {pid} on "


@dataclass(frozen=True)
class Case:
    """One fault.

    Args:
        job: Name of the job.
        kind: One of `KINDS`.
        place: What the job is doing then; for a fault of the disk as a whole, the job's name.
        at: Number of the moment, the size in bytes, or a drawn number.
    """

    job: str
    kind: str
    place: str
    at: int


@dataclass
class Ending:
    """End of a job that a fault has struck.

    Args:
        code: Its exit code, or minus the signal's number.
        told: What it wrote to stderr.
        struck: Whether the fault came to pass.
        wrong: Description of what went wrong before the job's end is judged; empty if nothing did.
    """

    code: int
    told: str
    struck: bool
    wrong: str = ""


def called(call: Callable[[], object]) -> tuple[int, str]:
    """The exit code and the errors of a command, which is run in this process."""
    try:
        call()
    except CommandError as error:
        return error.code, error.text
    except KeyboardInterrupt:
        return 130, "Traceback (most recent call last): KeyboardInterrupt"
    except BaseException as error:  # noqa: BLE001  # anything that the command line itself does not catch
        return 1, f"Traceback (most recent call last): {type(error).__name__}: {error}"
    return 0, ""


def strike(job: Job, case: Case, folder: Path) -> Ending:
    """Runs a job into its fault, and takes the fault away again."""
    if case.kind == "SIGKILL":
        return _killed(job, case, folder)
    if case.kind in SIGNALS:
        return _watched(job, case, folder, strikes.send(case.kind))
    if case.kind == "full disk":
        return _watched(job, case, folder, strikes.full)
    if case.kind == "unreadable file":
        return _watched(job, case, folder, strikes.unreadable)
    if case.kind == "read-only folder":
        try:
            return _watched(job, case, folder, strikes.read_only(folder))
        finally:
            strikes.writable(folder)
    if case.kind == "largest file":
        with strikes.largest_file(case.at):
            code, told = called(lambda: job.begin(folder))
        return Ending(code, told, bool(code))
    if case.kind == "small disk":
        code, told = called(lambda: job.begin(folder))
        strikes.mount_small(folder, 2**28, again=True)
        return Ending(code, told, bool(code))
    if case.kind == "dead loading process":
        return _dead_loader(job, case, folder)
    if case.kind == "second run":
        return _second(job, case, folder)
    return _damaged(job, case, folder)


def _watched(job: Job, case: Case, folder: Path, act: strikes.Act) -> Ending:
    with Watch(folder.parent, job.place, case.at, act) as watch:
        code, told = called(lambda: job.begin(folder))
    return Ending(code, told, watch.struck)


def _killed(job: Job, case: Case, folder: Path) -> Ending:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _watched(job, case, folder, strikes.send("SIGKILL"))
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ending(ended, "", ended == -signal.SIGKILL)


def _dead_loader(job: Job, case: Case, folder: Path) -> Ending:
    """Kills a loading process once it has given some images."""
    from vithub.data.labelled import dataset

    assert isinstance(job, Training)
    main, sample, given = os.getpid(), dataset.LabelledImages.__getitem__, [0]

    def struck(self: dataset.LabelledImages, key: int) -> object:
        given[0] += 1
        if os.getpid() != main and given[0] > case.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(self, key)

    with patch.object(dataset.LabelledImages, "__getitem__", struck), patch.object(job, "workers", 1):
        code, told = called(lambda: job.begin(folder))
    return Ending(code, told, bool(code))


def _second(job: Job, case: Case, folder: Path) -> Ending:
    """Starts a second process on the same folder, which must be refused and change nothing."""
    answers: list[str] = []

    def act(kind: str, path: str) -> None:
        with tempfile.TemporaryFile("w+") as answer:
            child = os.fork()
            if child == 0:
                _answer_as_second(job, folder, answer)
            os.waitpid(child, 0)
            answer.seek(0)
            answers.append(answer.read())

    ending = _watched(job, case, folder, act)
    refused = SECONDS.format(pid=os.getpid())
    if not answers or not re.search(refused, answers[0]) or str(folder / "out") not in answers[0]:
        ending.wrong = f"the second was not refused with the folder and the pid that holds it: {answers}"
    return ending


def _answer_as_second(job: Job, folder: Path, answer: io.TextIOBase) -> None:
    from vithub.training import run_lock

    Watch.current = None
    run_lock._held.clear()  # what a process that begins anew holds
    with contextlib.suppress(BaseException):
        code, told = called(lambda: job.finish(folder))
        answer.write(f"{code} {told}")
        answer.flush()
    os._exit(0)


def _damaged(job: Job, case: Case, folder: Path) -> Ending:
    """Ends a training by SIGTERM and damages a file of its last checkpoint, of each kind in turn."""
    from vithub.training.loop.checkpoints import checkpoints

    ending = _watched(job, Case(case.job, "SIGTERM", case.place, LATE), folder, lambda kind, path: None)
    out = folder / "out"
    for name in ("model.safetensors", "metrics.json"):  # as before its end
        (out / name).unlink()
    last = checkpoints(out / "checkpoints")[-1]
    files = sorted(path for path in last.iterdir() if path.is_file())
    file = files[case.at % len(files)]
    content = bytearray(file.read_bytes())
    place = case.at // len(files) % len(content)
    if case.kind == DAMAGES[0]:
        content = content[:place]
    else:
        content[place] ^= 1 << case.at % 8
    file.write_bytes(bytes(content))
    return Ending(ending.code, ending.told, True)


LATE = 10**9


def wrong_ending(ending: Ending, case: Case) -> str | None:
    """Describes what is wrong with a job's exit code or message; None if both fit the fault."""
    if ending.wrong:
        return ending.wrong
    if "Traceback" in ending.told:
        return f"a traceback: {ending.told[-300:]}"
    told = [line for line in ending.told.splitlines() if line.startswith("vithub: ")]
    if ending.code and ending.code > 0 and len(told) != 1:
        return f"not one line that says why: {ending.told[-300:]}"
    if case.kind in SIGNALS:
        if ending.code not in (0, SIGNALS[case.kind]):
            return f"exit code {ending.code}: {ending.told[-300:]}"
    elif case.kind in CAUSES and ending.code:
        if ending.code not in (1, 2):  # 2 where it is the recipe that cannot be read
            return f"exit code {ending.code}: {told[0]}"
        if not re.search(CAUSES[case.kind], told[0]):
            return f"a message without the cause: {told[0]}"
    elif ending.code:
        return f"exit code {ending.code}: {ending.told[-300:]}"
    return None


def possible(kind: str, moment: str) -> bool:
    """Whether a kind of fault can strike at a kind of moment."""
    if kind in ("full disk", "read-only folder"):
        return moment in WRITES
    return moment == "read" if kind == "unreadable file" else True


@contextlib.contextmanager
def case_folder(root: Path, case: Case) -> Iterator[Path]:
    """A new folder for a case, on a small file system of its own where the fault is one, with the temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=root))
    before, small = (tempfile.tempdir, Path.cwd()), case.kind == "small disk"
    scratch = Path(tempfile.mkdtemp(prefix="tmp-", dir=root))
    tempfile.tempdir = str(scratch)
    if small:
        strikes.mount_small(folder, 2**28)
    try:
        yield folder
    finally:
        tempfile.tempdir = before[0]
        os.chdir(before[1])
        if small:
            strikes.unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)


__all__ = [
    "CAUSES", "DAMAGES", "KINDS", "SIGNALS", "Case", "Ending", "called", "case_folder", "command", "possible",
    "strike", "wrong_ending",
]  # fmt: skip
