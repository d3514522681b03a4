"""Process in which one candidate after the other is measured, each in a fork of its own:

    python -P -m vithub.deployment.optimizing.measuring_process

It reads requests as lines of JSON and answers each by a line of JSON, after the libraries are imported once. OpenVINO,
ONNX Runtime and torch each keep threads of their own, pin them to cores or let them wait actively: in one process they
would slow each other down. A fork that ends by a signal or takes too long spoils nothing but its own candidate.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from .answers import Answers, named_answers
from .candidates import Candidate
from .optimized_model import Calibration, OptimizedModel, open_candidate

SLOWER = 3.0  # times the best so far at which a candidate is given up after its first batch
CALL_SECONDS = 1.5  # time for the calls of one batch size and number of threads
CALLS, MOST_CALLS = 2, 30  # least and largest number of those calls
CHECKED_AT_ONCE = 8  # images
_PAUSE = 0.02  # seconds between two looks at a fork


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """Measures a candidate, and writes its answers for the given pixels.

    Args:
        request: `candidate` (fields of a `Candidate`), `folder`, `work`, `data`, `pixels` and `answers` (safetensors
            files to read and to write), `threads` and `batch_sizes` (lists to try), `best` (seconds per image of the
            best candidate so far, or null), `limit` (seconds), `together` (whether images go in batches), `reference`
            (file with the answers of eager fp32, or null where int8 cannot be calibrated on the pixels).

    Returns:
        `seconds` per image, `batch_size` and `threads` of the fastest, `start_seconds` (loading, exporting, compiling
        and the first batch), `answered` (number of images with answers), `note` and `gated` (of an int8 file: how it
        was made, and whether its accuracy was checked), or `slower`: why it was given up.
    """
    begun = time.monotonic()
    end = begun + 0.9 * request["limit"]
    candidate = Candidate(**request["candidate"])
    pixels = [image for _, image in sorted(safetensors.torch.load_file(request["pixels"]).items())]
    threads, sizes = request["threads"], sorted(request["batch_sizes"])
    folder, work = Path(request["folder"]), Path(request["work"])
    # half of the time is left for measuring
    given = None if request["reference"] is None else (pixels, Path(request["reference"]), (begun + end) / 2)
    calibration = Calibration(request["data"], *(given or ()))

    def opened(count: int, size: int) -> OptimizedModel:
        return open_candidate(candidate, folder, work, count, size, calibration)

    model, first = opened(threads[0], sizes[0]), _batch(pixels, sizes[0])
    loaded = time.monotonic()
    with torch.inference_mode():
        model(pixel_values=first)
        started = time.monotonic()
        seconds = _best_seconds(model, first, 0.0) / sizes[0]
        result: dict[str, Any] = {
            "seconds": seconds, "batch_size": sizes[0], "threads": threads[0], "start_seconds": started - begun,
            "first_seconds": started - loaded, "answered": 0, "note": _note(model),
            "gated": _record(model).get("accuracy") is not None,
        }  # fmt: skip
        slow = request["best"] is not None and seconds > SLOWER * request["best"]
        if slow:  # a single call may have waited for other programs
            again = _best_seconds(model, first, 0.2)
            seconds = result["seconds"] = min(seconds, again / sizes[0])
        if slow and seconds > SLOWER * request["best"]:
            return {**result, "slower": f"{seconds / request['best']:.1f} times as long as the best so far"}
        result["answered"] = _write_answers(model, pixels, request, begun, end)
        opened_with, number_of_trials = threads[0], len(threads) + len(sizes) - 1
        for number, (count, size) in enumerate(_trials(threads, sizes, result)):
            left = end - time.monotonic()
            if left <= 0:
                break
            if CALLS * size * result["seconds"] > left:  # a smaller size may still fit
                continue
            if count != model.threads and candidate.form is None:
                model.threads = count
            elif count != opened_with:
                model, opened_with = opened(count, size), count
            batch = _batch(pixels, size)
            share = min(CALL_SECONDS, left / (number_of_trials - number))
            found = _best_seconds(model, batch, share) / size
            if found < result["seconds"] or number == 0:
                result |= {"seconds": found, "batch_size": size, "threads": count}
    return result


def _trials(threads: Sequence[int], sizes: Sequence[int], best: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Numbers of threads and batch sizes to time: each number at the middle size, then the other sizes with the best.

    All pairs would take most of the time that a slow machine has for them; `best` is read between the two sweeps.
    """
    middle = sizes[len(sizes) // 2]
    yield from ((count, middle) for count in threads)
    yield from ((best["threads"], size) for size in sizes if size != middle)


def _note(model: OptimizedModel) -> str | None:
    """Accuracy of an int8 file, which was measured when it was made, or else what it was calibrated on."""
    accuracy, int8 = (_record(model).get(name) for name in ("accuracy", "int8"))
    if accuracy is None and int8 is not None:
        return (
            f"calibrated on {int8['calibration_images']} images, {len(int8['layers_in_fp32'])} of {int8['layers']} "
            "layers in fp32"
        )
    if accuracy is None:
        return None
    return (
        f"{accuracy['measure']} {accuracy['exported']:.2%}, of the weights {accuracy['source']:.2%}, on "
        f"{accuracy['images']} images of {accuracy['data']}"
    )


def _record(model: OptimizedModel) -> dict[str, Any]:
    """Entry of `export.json`; empty for torch."""
    return getattr(model.runner, "record", None) or {}


def _batch(pixels: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """Batch of `size` images of the first image's shape, repeated where there are too few."""
    alike = [one for one in pixels if one.shape == pixels[0].shape]
    return torch.stack([alike[number % len(alike)] for number in range(size)])


def _best_seconds(model: OptimizedModel, batch: torch.Tensor, seconds: float) -> float:
    """Shortest time of a call, of at least two calls and of as many as fit: other programs only ever add to it."""
    best, end = float("inf"), time.monotonic() + seconds
    for number in range(MOST_CALLS):
        if number >= CALLS and time.monotonic() > end:
            break
        begun = time.monotonic()
        model(pixel_values=batch)
        if batch.is_cuda or model.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - begun)
    return best


def _write_answers(
    model: OptimizedModel, pixels: Sequence[torch.Tensor], request: dict[str, Any], begun: float, end: float
) -> int:
    """Writes the answers for as many of the images as half of the time allows; returns their number."""
    answers: Answers = {}
    at_once = CHECKED_AT_ONCE if request["together"] else 1
    half = begun + (end - begun) / 2
    for first in range(0, len(pixels), at_once):
        if first and time.monotonic() > half:
            break
        part = pixels[first : first + at_once]
        output = model(pixel_values=torch.stack(list(part)))
        answers |= named_answers(output, first)
    safetensors.torch.save_file(answers, request["answers"])
    return len({name.split(".")[0] for name in answers})


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Measures a candidate; an exception becomes an `error` of one line."""
    begun = time.monotonic()
    try:
        return {**measured(request), "took": time.monotonic() - begun}
    except Exception as error:  # noqa: BLE001  # engines raise errors of their own kinds
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def in_fork(request: dict[str, Any]) -> dict[str, Any]:
    """Measures a candidate in a fork of this process, within its time."""
    result = Path(request["result"])
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(request["threads"][0])
            result.write_text(json.dumps(answer(request)), encoding="utf-8")
        finally:
            os._exit(0)
    end, parent = time.monotonic() + request["limit"], os.getppid()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end or os.getppid() != parent:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"error": f"took longer than {request['limit']:.0f} s"}
        time.sleep(_PAUSE)
    if os.WIFSIGNALED(status):
        return {"error": f"its process ended by {signal.Signals(os.WTERMSIG(status)).name}"}
    if not result.is_file():
        return {"error": f"its process ended with exit code {os.waitstatus_to_exitcode(status)}"}
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def serve() -> None:
    """Answers requests until the standard input ends."""
    forks = sys.platform == "linux"
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what engines print is not an answer
        for line in sys.stdin:
            request = json.loads(line)
            found = in_fork(request) if forks else answer(request)
            answers.write(json.dumps(found) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve()

__all__ = ["answer", "in_fork", "measured", "serve"]
