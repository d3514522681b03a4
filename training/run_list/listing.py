"""List of the runs below a folder: what they differ in and what came out, also for runs that broke off."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...hub.checkpoints import CheckpointError, read_json
from ...hub.folders import TargetError
from ..loop.checkpoints import STATE, last_checkpoint, read_state
from ..recipe.effects import has_effect_on
from ..recipe.recipe import RecipeError, field_names, flat, read_content
from ..recipe.run_files import METRICS, RECIPE
from ..recipe.sealed_file import is_edited
from ..recipe.task_options import UNKNOWN_TO

FINISHED, UNFINISHED, BROKEN = "finished", "unfinished", "broken"
_OWN_COLUMNS = ("task", "model.source")  # shown of every run, and not again among the differences


@dataclass
class RunEntry:
    """A run, as its folder tells it.

    Args:
        folder: Folder of the run.
        state: "finished", "unfinished" (it can be resumed), or "broken".
        reason: What is wrong, missing or was edited, for people; None if there is nothing to tell.
        date: Time in UTC at which it finished, else of its last change: "2026-11-28T14:03:00Z".
        task: Task of the recipe; None if that cannot be read.
        model: Model that it began from.
        headline: Name of the metric by which its epochs are compared.
        value: Headline metric of the reported split; of an unfinished run the best so far on the validation split.
        interval: Interval (low, high) of the value, where the run has one.
        split: Split that the value is of.
        seconds: Time spent in training and validation.
        steps: Number of steps made.
        differences: Recipe fields that differ between the listed runs, with this run's values.
        history: Entries of the epochs.
        recipe: Recipe's values by dotted name.
    """

    folder: Path
    state: str = BROKEN
    reason: str | None = None
    date: str | None = None
    task: str | None = None
    model: str | None = None
    headline: str | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    split: str | None = None
    seconds: float | None = None
    steps: int | None = None
    differences: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry as plain data, without history and recipe."""
        content = {name: value for name, value in vars(self).items() if name not in ("history", "recipe")}
        return {**content, "folder": str(self.folder)}


class _WrongFieldError(ValueError):
    """Error for a field of a file that is missing or has a wrong type."""


def list_runs(folder: str | Path) -> list[RunEntry]:
    """Lists the runs in a folder and below it: those of one task and metric together, the best first.

    Unfinished runs follow the finished ones of their task, and broken ones come last.

    Args:
        folder: Folder of runs, or of one run.

    Raises:
        TargetError: There is no such folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise TargetError(f"there is no folder {folder}; name one that holds the folders of runs")
    entries = [_entry(found) for found in _run_folders(folder)]
    _note_differences([one for one in entries if one.recipe])
    return sorted(entries, key=_rank)


def _rank(one: RunEntry) -> tuple[Any, ...]:
    state = (FINISHED, UNFINISHED, BROKEN).index(one.state)
    value = -math.inf if one.value is None or math.isnan(one.value) else one.value
    return (state == 2, one.task or "", state, one.headline or "", -value, one.folder)


def _run_folders(folder: Path) -> list[Path]:
    """Finds folders with a recipe, or with metrics beside weights, in a stable order; follows no links."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "checkpoints" and not name.startswith("."))
        if RECIPE in files or (METRICS in files and any(name.endswith(".safetensors") for name in files)):
            found.append(Path(place))
    return found


def _entry(folder: Path) -> RunEntry:
    entry = RunEntry(folder)
    try:
        _read_recipe(entry)
        if (folder / METRICS).is_file():
            _read_metrics(entry)
        else:
            _read_progress(entry)
    except (RecipeError, CheckpointError, OSError, _WrongFieldError) as error:
        entry.state, entry.reason = BROKEN, " ".join(str(error).split())
    except RecursionError:
        entry.state, entry.reason = BROKEN, f"{RECIPE} is nested too deeply"
    return entry


def _read_recipe(entry: RunEntry) -> None:
    """Reads the values of a recipe as they stand, since a recipe of another version may have other fields."""
    file = entry.folder / RECIPE
    if not file.is_file():
        raise _WrongFieldError(f"{RECIPE} is missing")
    entry.date = _utc(file.stat().st_mtime)
    text, content = read_content(file)
    values = flat({str(name): value for name, value in content.items()})
    entry.task = _of_type(values.get("task", "classification"), str, f"{RECIPE}: task")
    entry.model = str(values.get("model.source", "the default"))
    entry.recipe = values
    if is_edited(text):
        entry.reason = f"{RECIPE} was edited after the run wrote it"


def _read_metrics(entry: RunEntry) -> None:
    metrics = read_json(entry.folder / METRICS)
    split = _of_type(metrics.get("reported_split"), str, f"{METRICS}: reported_split")
    values = _of_type(metrics.get(split), dict, f"{METRICS}: {split}")
    entry.headline = _of_type(metrics.get("headline", "accuracy"), str, f"{METRICS}: headline")
    value = values.get(entry.headline)
    entry.value = None if value is None else _number(value, f"{METRICS}: {split}.{entry.headline}")
    entry.split = split
    entry.seconds = _number(metrics.get("seconds"), f"{METRICS}: seconds")
    entry.history = _history(metrics.get("history"), METRICS)
    entry.steps = _whole(entry.history[-1]["step"]) if entry.history else None
    ends = _of_type(metrics.get("intervals") or {}, dict, f"{METRICS}: intervals").get(entry.headline)
    if ends is not None:
        place = f"{METRICS}: intervals.{entry.headline}"
        low, high = (*_of_type(ends, list, place), None, None)[:2]
        entry.interval = _number(low, place), _number(high, place)
    entry.date = _of_type(metrics.get("finished", entry.date), str, f"{METRICS}: finished")
    if not any(entry.folder.glob("*.safetensors")):
        raise _WrongFieldError("the weights are missing: no .safetensors beside the metrics")
    entry.state = FINISHED


def _read_progress(entry: RunEntry) -> None:
    """Reads what the last checkpoint tells of a run that has no metrics yet."""
    checkpoint = last_checkpoint(entry.folder / "checkpoints")
    entry.state = UNFINISHED
    if checkpoint is None:
        entry.reason = "no checkpoint yet"
        return
    name = f"{checkpoint.name}/{STATE}"
    try:
        state = _of_type(read_state(checkpoint), dict, name)
    except (ValueError, RecursionError) as error:
        raise _WrongFieldError(f"{name} is no readable JSON: {error}") from error
    entry.date = _utc(checkpoint.stat().st_mtime)
    entry.steps = _whole(_number(state.get("step"), f"{name}: step"))
    entry.seconds = _number(state.get("seconds", 0.0), f"{name}: seconds")
    entry.history = _history(state.get("history"), name)
    entry.reason = f"stopped after step {entry.steps}"
    keys = [key for key in (entry.history[-1] if entry.history else {}) if _is_quality(key)]
    if keys:
        entry.headline, entry.split = keys[0].removeprefix("validation_"), "validation"
        entry.value = max(_number(one.get(keys[0]), f"{name}: {keys[0]}") for one in entry.history)


def _is_quality(key: str) -> bool:
    return key.startswith("validation_") and key != "validation_loss"


def _history(value: Any, where: str) -> list[dict[str, Any]]:
    """Returns the entries of the epochs, whose numbers are checked."""
    history = []
    for entry in _of_type(value if value is not None else [], list, f"{where}: history"):
        stated = {"step": 0, **_of_type(entry, dict, f"{where}: history")}
        stated = {"epoch": stated.get("epoch"), **{name: found for name, found in stated.items() if found is not None}}
        history.append({name: _number(found, f"{where}: history.{name}") for name, found in stated.items()})
    return history


def _of_type(value: Any, kind: type, place: str) -> Any:
    if not isinstance(value, kind):
        raise _WrongFieldError(f"{place} must be of type {kind.__name__}, got {str(value)[:60]!r}")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongFieldError(f"{place} must be a number, got {str(value)[:60]!r}")
    return float(value)


def _whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _note_differences(entries: Sequence[RunEntry]) -> None:
    """Gives each run the values of the fields in which not all runs agree; a missing field has its default."""
    defaults = {name: default for name, (default, _) in field_names().items()}
    whole = [_comparable({**defaults, **one.recipe}) for one in entries]
    names = sorted({name for values in whole for name in values} - set(_OWN_COLUMNS))
    for name in names:
        values = [one.get(name) for one in whole]
        if any(value != values[0] for value in values[1:]):
            for entry, value in zip(entries, values, strict=True):
                if entry.task not in UNKNOWN_TO or has_effect_on(str(entry.task), name):
                    entry.differences[name] = value


def _comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values with tuples as lists, as files hold them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


__all__ = ["BROKEN", "FINISHED", "UNFINISHED", "RunEntry", "list_runs"]
