"""Tells which kind of outcome a case had."""

import json
import re
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from .case import CLEAR, LOST, RIGHT, TRACEBACK, WRONG, Case, CommandError, LostError, Outcome, Place

# Raw in a terminal they move its cursor, recolour it, or turn what follows around.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def outcome(case: Case, work: Path, shared: Path) -> Outcome:
    """Runs a case in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=work))
    place, begun = Place(folder, shared), time.perf_counter()
    try:
        try:
            case.prepare(place)
        except Exception:  # noqa: BLE001  # told as a fault of this script
            return Outcome("broken", traceback.format_exc(limit=-3))
        try:
            found = _judged(case, place)
        except Exception:  # noqa: BLE001
            return Outcome("broken", traceback.format_exc(limit=-3))
        if gone := place.lost():
            found = Outcome(LOST, f"{', '.join(gone)} changed or gone; {found.kind}: {found.detail}")
        found.seconds = round(time.perf_counter() - begun, 2)
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(case: Case, place: Place) -> Outcome:
    try:
        answer = case.act(place)
    except LostError as error:
        return Outcome(LOST, str(error))
    except CommandError as error:
        return _of_command(case, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # any at all is an outcome
        return _of_exception(case, error)
    wrong = case.right(answer)
    return Outcome(RIGHT) if wrong is None else Outcome(WRONG, wrong)


def _of_command(case: Case, error: CommandError) -> Outcome:
    lines = [line for line in error.text.strip().splitlines() if line.strip()]
    if "Traceback (most recent call last)" in error.text:
        return Outcome(TRACEBACK, _short(error.text))
    told = [line for line in lines if line.startswith("vithub: ")]
    if error.code == 1 and not told and "must not be trained on" not in error.text:
        return Outcome(TRACEBACK, f"exit code 1 without a line that tells why: {_short(error.text)}")
    text = " ".join(told) if told else error.text
    return _named(case, text)


def _of_exception(case: Case, error: BaseException) -> Outcome:
    from vithub.scripts.command_line import _is_ours  # what the command line tells in one line

    text = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    if not _is_ours(error):
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        where = f"{Path(frame.f_code.co_filename).name}:{line}"
        return Outcome(TRACEBACK, _short(f"{text} ({where})"))
    return _named(case, str(error))


def _named(case: Case, text: str) -> Outcome:
    if control := CONTROLS.search(text):
        return Outcome(TRACEBACK, f"an error with the control character {control[0]!r} as it is")
    flat = " ".join(text.split())
    if case.names and not any(name in flat for name in case.names):
        return Outcome(TRACEBACK, _short(f"an error that names none of {', '.join(case.names)}: {text}"))
    return Outcome(CLEAR, _short(text))


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else f"{flat[:90]} ... {flat[-200:]}"


def strict_json(text: str) -> Any:
    """Reads JSON without NaN and infinities, which other readers refuse.

    Raises:
        ValueError: It is none.
    """

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


__all__ = ["CONTROLS", "outcome", "strict_json"]
