"""Measurements of candidates, each in a process of its own with a time limit."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from .candidates import REFERENCE, Candidate

START_SECONDS = 120  # most that the import of the libraries may take, beyond a candidate's time


@dataclass(frozen=True)
class Measurement:
    """Row of the table of candidates.

    Args:
        candidate: Way to compute.
        seconds: Seconds per image of the fastest batch size and number of threads; None where it was not timed.
        batch_size: Images at once at which it was fastest.
        threads: Number of threads with which it was fastest.
        start_seconds: Seconds for loading, exporting and compiling, and for the first batch.
        first_seconds: The part of `start_seconds` after loading and exporting: compiling, and the first batch.
        difference: Largest difference of a probability (of a detector: or of a side of a box, as part of the image)
            from eager fp32's; None where the answers were not compared.
        agreement: Share of the images (of a detector: of the boxes) with the same label as eager fp32, in [0, 1].
        images: Number of images on which the answers were compared.
        refused: Why it must not be used; None if it may.
        note: Accuracy of an int8 file, or what it was calibrated on; None for others.
        gated: Whether an int8 file was kept by its accuracy on labelled images, which then decides in place of the
            differences.
    """

    candidate: Candidate
    seconds: float | None = None
    batch_size: int | None = None
    threads: int | None = None
    start_seconds: float = 0.0
    first_seconds: float = 0.0
    difference: float | None = None
    agreement: float | None = None
    images: int = 0
    refused: str | None = None
    note: str | None = None
    gated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Measurement of plain values."""
        return cls(**{**values, "candidate": Candidate(**values["candidate"])})


@dataclass(frozen=True)
class Optimization:
    """Result of the measurements.

    Args:
        measurements: Row of each candidate, the reference (eager fp32) first.
        chosen: Row of the one that was chosen.
        why: Reason of the choice.
        compared_on: Images on which the answers were compared.
        seconds: Time that measuring took; 0 where a kept choice was used.
        kept: Folder in which the choice is kept; None if it is not.
    """

    measurements: tuple[Measurement, ...]
    chosen: Measurement
    why: str
    compared_on: str
    seconds: float
    kept: Path | None = None

    def lines(self) -> list[str]:
        """The table and the choice as lines of text."""
        took = f"measured in {self.seconds:.0f} s" if self.seconds else "measured earlier"
        lines = [f"fast: {took}; answers compared with eager fp32 on {self.compared_on}"]
        width = max(len(row.candidate.name) for row in self.measurements)
        for row in self.measurements:
            parts = []
            if row.seconds is not None:
                parts.append(f"{1 / row.seconds:.1f} images/s at batch {row.batch_size}, {row.threads} threads")
            if row.difference is not None and row.agreement is not None:
                parts.append(f"largest difference {row.difference:.1g}, {row.agreement:.1%} same labels")
            parts += [row.note] if row.note else []
            parts += [f"not used: {row.refused}"] if row.refused else []
            lines.append(f"  {row.candidate.name:{width}}  {'; '.join(parts)}")
        return [*lines, f"chosen: {self.chosen.candidate.name}: {self.why}"]


class MeasuringProcess:
    """Starts the process that measures; a context manager that ends it with all that it started.

    Args:
        folder: Folder of the model.
        work: Folder for exported files, pixels and answers.
        data: Labelled images for int8, as a path or Hub id; None takes a run's own.
        calibrate: Whether int8 is calibrated on the pixels, which are of given images, in place of labelled ones.
    """

    def __init__(self, folder: Path, work: Path, data: str | None = None, calibrate: bool = False) -> None:
        self.folder, self.work, self.data, self.calibrate = folder, work, data, calibrate
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[str | None] = queue.Queue()
        self.waited = 0.0  # seconds for the import of the libraries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def measure(
        self, candidate: Candidate, limit: float, best: float | None, threads: list[int], batch_sizes: list[int],
        together: bool,
    ) -> Measurement:  # fmt: skip
        """Measures a candidate; whatever goes wrong becomes a reason not to use it.

        Args:
            candidate: Way to compute.
            limit: Most seconds that it may take.
            best: Seconds per image of the best candidate so far; None for the first.
            threads: Numbers of threads to try.
            batch_sizes: Batch sizes to try.
            together: Whether all images have one shape.
        """
        request = {
            "candidate": asdict(candidate), "folder": str(self.folder), "work": str(self.work), "data": self.data,
            "pixels": str(self.work / "pixels.safetensors"), "answers": str(self.answers_of(candidate)),
            "threads": threads, "batch_sizes": batch_sizes, "best": best, "limit": limit, "together": together,
            "result": str(self.work / "result.json"),
            "reference": str(self.answers_of(replace(REFERENCE, token_merging=candidate.token_merging)))
            if self.calibrate
            else None,
        }  # fmt: skip
        begun = time.monotonic()
        found = self._asked(request, limit)
        self.waited += max(0.0, time.monotonic() - begun - found.get("took", limit))
        if sys.platform != "linux":  # where forks after the import of torch are unsafe, each gets a new process
            self._end()
        if (error := found.get("error")) is not None:
            return Measurement(candidate, refused=error)
        measurement = Measurement(
            candidate, found["seconds"], found["batch_size"], found["threads"], found["start_seconds"],
            found["first_seconds"], images=found["answered"],
        )  # fmt: skip
        return replace(
            measurement, refused=found.get("slower"), note=found.get("note"), gated=found.get("gated", False)
        )

    def answers_of(self, candidate: Candidate) -> Path:
        """File with a candidate's answers."""
        more = "-compiled" if candidate.compiled else ""
        return self.work / f"{candidate.engine}-{candidate.precision}{more}-{candidate.token_merging}.safetensors"

    def _asked(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        first = self.process is None or self.process.poll() is not None
        process = self._started() if first else self.process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = self.answers.get(timeout=limit + 5 + (START_SECONDS if first else 0))
        except queue.Empty:
            self._end()
            return {"error": f"took longer than {limit:.0f} s"}
        except OSError:
            line = None
        if line is None:
            words = self._last_words()
            self._end()
            return {"error": f"the measuring process ended{words}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def _started(self) -> subprocess.Popen[str]:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process is
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vithub.deployment.optimizing.measuring_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, encoding="utf-8",
            start_new_session=True,  # so that all that it started can be ended, and Ctrl-C reaches this process alone
            # threads of OpenMP that began before a fork are missing after it: forks set their number themselves
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        )  # fmt: skip
        self.process, self.answers = process, queue.Queue()
        threading.Thread(target=_forward, args=(process.stdout, self.answers), daemon=True).start()
        return process

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    def _end(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.errors.close()
        self.process = None


def _forward(stream: Any, answers: "queue.Queue[str | None]") -> None:
    """Puts each line of a stream into a queue, and None at its end."""
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            answers.put(line)
    answers.put(None)


__all__ = ["Measurement", "MeasuringProcess", "Optimization"]
