"""Checkpoints of a run: whole or not there, tensors as safetensors, the rest as JSON.

A checkpoint is the folder `checkpoints/step-00000042` with `model.safetensors`, `optimizer.safetensors`, `state.json`
and, where weights are averaged, `ema.safetensors`. It is written under another name and renamed, so that one that
exists is complete.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

_NAME = re.compile(r"step-(\d{8})")
MODEL, OPTIMIZER, EMA, STATE = "model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"
BEST = "best.safetensors"


class CheckpointWriteError(OSError):
    """A checkpoint that could not be written; those before it are untouched."""


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
    """Writes the checkpoint of a step and removes all but the last `keep`.

    Args:
        folder: The run's folder of checkpoints.
        step: Steps done.
        model: Its parameters and buffers are saved.
        optimizer: Its state is saved by parameter name.
        state: Further plain data.
        keep: At least 1.
        ema: The average of the model's weights.
        write: False in all processes but one; where a model is sharded every process must call this.

    Raises:
        CheckpointWriteError: The disk is full or the folder cannot be written.
    """
    tensors = {MODEL: whole_state(model), OPTIMIZER: optimizer_tensors(model, optimizer)}
    if ema is not None:
        tensors[EMA] = whole_state(ema)
    if not write:
        return None
    target, staging = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, content in tensors.items():
            save_tensors(content, staging / name)
        state = {**state, "groups": _group_numbers(optimizer), "step": step}
        _write(staging / STATE, json.dumps(state, indent=1).encode())
        if target.exists():
            shutil.rmtree(target)
        staging.replace(target)
        _sync_folder(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise _write_error(folder, f"the checkpoint of step {step}", error) from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def save_best(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Writes the best weights so far to `best.safetensors`; those before stay until these are whole."""
    staging = folder / f".{BEST}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(state, staging)
        staging.replace(folder / BEST)
    except (OSError, safetensors.SafetensorError) as error:
        staging.unlink(missing_ok=True)
        raise _write_error(folder, "the best weights", error) from error


def _write_error(folder: Path, what: str, error: Exception) -> CheckpointWriteError:
    last = last_checkpoint(folder) or "none"
    return CheckpointWriteError(f"{what} could not be written to {folder}: {error}; the last good checkpoint is {last}")


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name) and (path / STATE).is_file())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    return found[-1] if (found := checkpoints(folder)) else None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The plain data of a checkpoint, `step` included."""
    content: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return content


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: nn.Module | None = None) -> None:
    """Puts back the model's, the optimizer's and the average's tensors."""
    load_whole(model, safetensors.torch.load_file(checkpoint / MODEL))
    if ema is not None:
        load_whole(ema, safetensors.torch.load_file(checkpoint / EMA))
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in safetensors.torch.load_file(checkpoint / OPTIMIZER).items():
        name, _, slot = key.rpartition("|")
        states.setdefault(name, {})[slot] = tensor
    for name, parameter in model.named_parameters():
        if name in states:
            optimizer.state[parameter] = {
                slot: tensor if slot == "step" else _like(tensor, parameter) for slot, tensor in states[name].items()
            }
    for group, numbers in zip(optimizer.param_groups, read_state(checkpoint)["groups"], strict=True):
        group.update({name: torch.tensor(number) for name, number in numbers.items()})


def load_whole(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Puts whole tensors into a model, sharding them where it is sharded."""
    own = model.state_dict()
    model.load_state_dict({name: _like(tensor, own[name]) for name, tensor in state.items()})


def _like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """A whole tensor on the device, and sharded as, another is."""
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's tensors, put together from all processes where they are sharded."""
    return {name: _whole(tensor) for name, tensor in model.state_dict().items()}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's tensors as "parameter name|slot"."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}|{slot}"] = _whole(value) if isinstance(value, torch.Tensor) else torch.tensor(value)
    return found


def _group_numbers(optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """Counters that an optimizer keeps with its groups, as LAMB does, rather than with each tensor."""
    return [{"step": float(group["step"])} if "step" in group else {} for group in optimizer.param_groups]


def save_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Writes tensors as safetensors and waits until they are on the disk."""
    content = safetensors.torch.save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {"format": "pt"}
    )
    _write(file, content)


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


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
    "CheckpointWriteError",
    "checkpoints",
    "last_checkpoint",
    "load_whole",
    "read_state",
    "restore",
    "save_best",
    "save_checkpoint",
    "save_tensors",
    "whole_state",
]
