"""Detection of damaged checkpoints by their checksums, and their removal from use."""

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..runtime.tensor_files import file_sum
from .checkpoints import (
    BEST,
    EMA,
    MODEL,
    OPTIMIZER,
    STATE,
    SUMS,
    CheckpointReadError,
    checkpoints,
    refuse_newer,
    step_of,
)

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_BESIDE = re.compile(r"\.\./best(-\d{8})?\.safetensors")


def set_aside_damaged(folder: Path, best: bool) -> list[str]:
    """Renames the checkpoints newer than the newest complete one to `step-00000042.damaged`.

    Args:
        folder: Folder of the run's checkpoints.
        best: Whether the best weights must be complete too.

    Returns:
        One line per renamed checkpoint, which names the damaged file.

    Raises:
        CheckpointReadError: There are checkpoints and none is complete, or a newer version of this package wrote one;
            nothing is renamed.
    """
    refuse_newer(folder)
    damaged: list[tuple[Path, str]] = []
    for checkpoint in reversed(checkpoints(folder)):
        fault = checkpoint_fault(checkpoint, best)
        if fault is None:
            return [_set_aside(path, text, checkpoint) for path, text in damaged]
        damaged.append((checkpoint, fault))
    if damaged:
        told = "; ".join(text for _, text in damaged)
        raise CheckpointReadError(f"none of the checkpoints can be resumed: {told}; remove {folder} to begin anew")
    return []


def _set_aside(checkpoint: Path, fault: str, whole: Path) -> str:
    number, target = 1, checkpoint.with_name(f"{checkpoint.name[:13]}.damaged")
    while target.exists():
        number += 1
        target = checkpoint.with_name(f"{checkpoint.name[:13]}.{number}.damaged")
    checkpoint.replace(target)
    return f"damaged checkpoint: {fault}; it is set aside as {target.name}, and the run goes on from {whole.name}"


def checkpoint_fault(checkpoint: Path, best: bool = True) -> str | None:
    """Describes the fault of a checkpoint, naming the file; None if it has none.

    Args:
        checkpoint: Folder of the checkpoint.
        best: Whether to check the best weights too, which lie beside the checkpoint.
    """
    try:
        return _sums_fault(checkpoint, best) or _state_fault(checkpoint)
    except OSError as error:
        return f"{checkpoint}: {error.strerror or error}"


def _sums_fault(checkpoint: Path, best: bool) -> str | None:
    sums = checkpoint / SUMS
    if not sums.is_file():  # written by version 0.1, or lost: the format in the state distinguishes the two
        return _unsummed_fault(checkpoint, best)
    found: dict[str, str] = {}
    for line in sums.read_bytes().decode("utf-8", errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or not (match[2] in (MODEL, OPTIMIZER, EMA, STATE) or _BESIDE.fullmatch(match[2])):
            return f"{sums} is no list of checksums: {line[:80]!r}"
        found[match[2]] = match[1]
    if missing := [name for name in (MODEL, OPTIMIZER, STATE) if name not in found]:
        return f"{sums} has no checksum of {', '.join(missing)}"
    for name, expected in found.items():
        file = checkpoint / name if not name.startswith("../") else checkpoint.parent / name[3:]
        if file.parent != checkpoint and not best:
            continue
        if not file.is_file():
            return f"{file} is missing"
        if file_sum(file) != expected:
            return f"{file} is not what was written: its SHA-256 is another than {SUMS} says"
    return None


def _unsummed_fault(checkpoint: Path, best: bool) -> str | None:
    """Describes the fault of a checkpoint without checksums, found by opening its files; None if it has none."""
    if fault := _state_fault(checkpoint):
        return fault
    state = json.loads((checkpoint / STATE).read_bytes())
    if state.get("format", 1) > 1:
        return f"{checkpoint / SUMS} is missing"
    files = [checkpoint / MODEL, checkpoint / OPTIMIZER]
    if best and state.get("history"):
        files.append(checkpoint.parent / BEST)
    for file in [*files, *checkpoint.glob(EMA)]:
        if not file.is_file():
            return f"{file} is missing"
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            return f"{file} is no whole safetensors file ({error})"
    return None


def _state_fault(checkpoint: Path) -> str | None:
    """Describes the first fault in the plain data that resuming needs; None if it has none."""
    file = checkpoint / STATE
    try:
        state: Any = json.loads(file.read_bytes())
    except ValueError as error:
        return f"{file} is no JSON ({error})"
    except RecursionError:
        return f"{file} is no JSON (it is nested too deeply)"
    kinds = {
        "step": int, "groups": list, "history": list, "best": list, "best_epoch": int, "seconds": int | float,
        "loss_sum": int | float, "skipped_steps": list, "bad_images": list,
    }  # fmt: skip
    if not isinstance(state, dict):
        return f"{file} must hold an object, got {type(state).__name__}"
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            return f"{file}: {name} is {state.get(name)!r}"
    stated = state.get("format", 1)
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        return f"{file}: format is {stated!r}"
    if state["step"] != step_of(checkpoint):
        return f"{file}: step is {state['step']}, in the checkpoint of step {step_of(checkpoint)}"
    if not all(isinstance(entry, dict) and isinstance(entry.get("step"), int) for entry in state["history"]):
        return f"{file}: history must be a list of epochs"
    return None


__all__ = ["checkpoint_fault", "set_aside_damaged"]
