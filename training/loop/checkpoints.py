"""Checkpoints of a run, written atomically: tensors as safetensors, the rest as JSON, each file with its checksum.

A checkpoint is the folder `checkpoints/step-00000042` with `model.safetensors`, `optimizer.safetensors`, `state.json`,
with EMA also `ema.safetensors`, and `SHA256SUMS`, which `sha256sum -c` checks too. It is written under another name and
renamed, so that an existing checkpoint is complete. The weights of the best epoch lie beside it in
`best-00000028.safetensors`, named by their step, and stay as long as a checkpoint refers to them.
"""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ...data.whole_files import whole_file
from ..runtime.tensor_files import file_sum, save_tensors, write_synced

# A checkpoint has the suffix ".old" while another of the same step takes its place.
_NAME = re.compile(r"step-(\d{8})(\.old)?")
MODEL, OPTIMIZER, EMA, STATE = "model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"
_DAMAGED = re.compile(r"step-(\d{8})(?:\.\d+)?\.damaged")
SUMS = "SHA256SUMS"
# Format that this version writes, and the newest that it resumes. The first, of version 0.1, has no checksums and does
# not state itself.
FORMAT = 2
BEST = "best.safetensors"  # name in runs of version 0.1, whose checkpoints do not state it
_BEST_NAME = re.compile(r"best(-\d{8})?\.safetensors")


class CheckpointWriteError(OSError):
    """Error for a checkpoint that could not be written; earlier checkpoints are untouched."""


class CheckpointReadError(OSError):
    """Error for a checkpoint that cannot be resumed; the message names the file."""


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
    *,
    ema: nn.Module | None = None,
    write: bool = True,
) -> Path | None:
    """Writes the checkpoint of a step and removes all but the last `keep` checkpoints.

    Args:
        folder: Folder of the run's checkpoints.
        step: Number of steps made.
        model: Model whose parameters and buffers are saved.
        optimizer: Optimizer whose state is saved by parameter name.
        state: Further plain data, stored as JSON.
        keep: Number of checkpoints to keep, at least 1.
        ema: EMA of the model, or None.
        write: Whether this process writes; True in one process only. All processes must call this if the model is
            sharded.

    Raises:
        CheckpointWriteError: The disk is full or the folder cannot be written.
    """
    tensors = {MODEL: whole_state(model), OPTIMIZER: optimizer_tensors(model, optimizer)}
    if ema is not None:
        tensors[EMA] = whole_state(ema)
    if not write:
        return None
    target, staging = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
    old = target.with_name(f"{target.name}.old")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        sums = {name: save_tensors(content, staging / name) for name, content in tensors.items()}
        state = {**state, "groups": _group_numbers(optimizer), "step": step, "format": FORMAT}
        sums[STATE] = write_synced(staging / STATE, json.dumps(state, indent=1).encode())
        best = folder / str(state.get("best_file", BEST))
        if best.is_file():
            sums[f"../{best.name}"] = file_sum(best)
        write_synced(staging / SUMS, "".join(f"{found}  {name}\n" for name, found in sums.items()).encode())
        if target.exists():
            target.replace(old)
        staging.replace(target)
        _sync_folder(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise _write_error(folder, f"the checkpoint of step {step}", error) from error
    shutil.rmtree(old, ignore_errors=True)
    _remove_old(folder, step, max(1, keep))
    return target


def _remove_old(folder: Path, step: int, keep: int) -> None:
    """Removes all but the last checkpoints, damaged ones that were replaced, and best weights without a checkpoint."""
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    for damaged in folder.glob("step-*.damaged"):
        if (number := _DAMAGED.fullmatch(damaged.name)) and int(number[1]) <= step:
            shutil.rmtree(damaged)
    try:
        named = {str(read_state(checkpoint).get("best_file", BEST)) for checkpoint in checkpoints(folder)}
    except (OSError, ValueError):  # a damaged checkpoint may name any of the files
        return
    for file in folder.iterdir():
        if _BEST_NAME.fullmatch(file.name) and file.name not in named:
            file.unlink()


def best_name(step: int) -> str:
    """Returns the name of the file with the best weights, which are those after `step` steps."""
    return f"best-{step:08d}.safetensors"


def save_best(folder: Path, name: str, state: dict[str, torch.Tensor]) -> None:
    """Writes the best weights so far; earlier ones stay as long as a checkpoint names them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / name) as staging:
            save_tensors(state, staging)
    except (OSError, safetensors.SafetensorError) as error:
        raise _write_error(folder, "the best weights", error) from error


def _write_error(folder: Path, what: str, error: Exception) -> CheckpointWriteError:
    last = last_checkpoint(folder) or "none"
    return CheckpointWriteError(f"{what} could not be written to {folder}: {error}; the last good checkpoint is {last}")


def checkpoints(folder: Path) -> list[Path]:
    """Lists all complete checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / STATE).is_file()]
    return sorted(found, key=lambda path: (step_of(path), path.suffix == ""))


def step_of(checkpoint: Path) -> int:
    """Returns the number of steps made when a checkpoint was written."""
    return int(checkpoint.name[5:13])


def last_checkpoint(folder: Path) -> Path | None:
    """Returns the newest complete checkpoint, or None."""
    return found[-1] if (found := checkpoints(folder)) else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Reads the plain data of a checkpoint, `step` included.

    Raises:
        CheckpointReadError: A newer version of this package wrote the checkpoint.
    """
    content: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    _refuse_newer(content, checkpoint / STATE)
    return content


def refuse_newer(folder: Path) -> None:
    """Raises a `CheckpointReadError` if a newer version of this package wrote a checkpoint of a run.

    Damaged files are passed over: they say nothing about a version.

    Args:
        folder: Folder of the run's checkpoints.
    """
    for checkpoint in checkpoints(folder):
        state: Any = None
        with suppress(ValueError, RecursionError, OSError):
            state = json.loads((checkpoint / STATE).read_bytes())
        _refuse_newer(state, checkpoint / STATE)


def _refuse_newer(state: Any, file: Path) -> None:
    stated = state.get("format", 1) if isinstance(state, dict) else 1
    if isinstance(stated, int) and stated > FORMAT:
        raise CheckpointReadError(
            f"{file}: made by a newer vithub: format {stated}, this version reads up to {FORMAT}; update vithub to go "
            "on with the run"
        )


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: nn.Module | None = None) -> None:
    """Loads a checkpoint's tensors into the model, the optimizer and the EMA.

    Raises:
        CheckpointReadError: A file is not a safetensors file, or its tensors do not match.
    """
    load_whole(model, read_tensors(checkpoint / MODEL), checkpoint / MODEL)
    if ema is not None:
        load_whole(ema, read_tensors(checkpoint / EMA), checkpoint / EMA)
    states = _optimizer_states(checkpoint / OPTIMIZER, model)
    on_device = {
        parameter
        for group in optimizer.param_groups
        if group.get("fused") or group.get("capturable")
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        if name in states:
            optimizer.state[parameter] = {
                slot: tensor if slot == "step" and parameter not in on_device else _like(tensor, parameter)
                for slot, tensor in states[name].items()
            }
    _restore_group_numbers(optimizer, read_state(checkpoint)["groups"], checkpoint / STATE)


def _restore_group_numbers(optimizer: torch.optim.Optimizer, saved: list[dict[str, float]], file: Path) -> None:
    """Restores counters kept per group.

    Checkpoints of version 0.1 have more groups than are made now; all groups of an optimizer count the same steps, so
    that any number of them says the same.
    """
    if not saved or any(numbers != saved[0] for numbers in saved):
        raise CheckpointReadError(f"{file}: the `groups` must all count the same steps, got {saved}")
    for group in optimizer.param_groups:
        group.update({name: torch.tensor(number) for name, number in saved[0].items()})


def _optimizer_states(file: Path, model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    """Reads the optimizer's tensors by parameter and slot.

    Raises:
        CheckpointReadError: A tensor belongs to no parameter or has another shape, or a parameter lacks a slot that
            others have.
    """
    states: dict[str, dict[str, torch.Tensor]] = {}
    parameters = dict(model.named_parameters())
    for key, tensor in read_tensors(file).items():
        name, _, slot = key.rpartition("|")
        if name not in parameters:
            raise CheckpointReadError(f"{file}: {key!r} belongs to no parameter of the model")
        if tensor.shape not in ((), parameters[name].shape):
            expected = list(parameters[name].shape)
            raise CheckpointReadError(f"{file}: {key!r} has shape {list(tensor.shape)}, its parameter {expected}")
        states.setdefault(name, {})[slot] = tensor
    for name, slots in states.items():  # Muon's two kinds of parameters have slots of which neither contains the other
        if missing := next((set(other) - set(slots) for other in states.values() if set(other) > set(slots)), None):
            raise CheckpointReadError(f"{file}: {name!r} lacks {', '.join(sorted(missing))}, which others have")
    return states


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a safetensors file.

    Raises:
        CheckpointReadError: The file is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointReadError(f"{file} cannot be read: {error}") from error


def load_whole(model: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    """Loads whole tensors into a model, and shards them if the model is sharded.

    Args:
        model: Model that receives all tensors.
        state: Whole tensors by name.
        file: Path of the tensors' file, for messages.

    Raises:
        CheckpointReadError: Names or shapes differ from the model's.
    """
    own = model.state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in own.items()}
    found = {name: list(tensor.shape) for name, tensor in state.items()}
    if shapes != found:
        names = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
        raise CheckpointReadError(
            f"{file} holds other tensors than the model: {names[0]!r} is {found.get(names[0], 'missing')}, "
            f"not {shapes.get(names[0], 'there')} ({len(names)} differ)"
        )
    model.load_state_dict({name: _like(tensor, own[name]) for name, tensor in state.items()})


def _like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Moves a whole tensor to the device of another one, in its memory format, and shards it in the same way."""
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    if tensor.shape == model.shape:  # fused optimizers need states in the memory format of their parameters
        return torch.empty_like(model, dtype=tensor.dtype).copy_(tensor)
    return tensor.to(model.device)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns a model's whole tensors by name, gathered from all processes if sharded."""
    return {name: _whole(tensor) for name, tensor in model.state_dict().items()}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Returns the optimizer's whole tensors by "parameter name|slot"."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}|{slot}"] = _whole(value) if isinstance(value, torch.Tensor) else torch.tensor(value)
    return found


def _group_numbers(optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """Returns the counters that an optimizer, such as LAMB, keeps per group instead of per tensor."""
    return [{"step": float(group["step"])} if "step" in group else {} for group in optimizer.param_groups]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = [
    "BEST",
    "EMA",
    "MODEL",
    "OPTIMIZER",
    "STATE",
    "SUMS",
    "CheckpointReadError",
    "CheckpointWriteError",
    "best_name",
    "checkpoints",
    "last_checkpoint",
    "load_whole",
    "read_state",
    "read_tensors",
    "refuse_newer",
    "restore",
    "save_best",
    "save_checkpoint",
    "step_of",
    "whole_state",
]
