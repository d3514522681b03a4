"""Checkpoints of a run: whole or not there, tensors as safetensors, the rest as JSON.

A checkpoint is the folder `checkpoints/step-00000042` with `model.safetensors`, `optimizer.safetensors` and
`state.json`. It is written under another name and renamed, so that one that exists is complete.
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

_NAME = re.compile(r"step-(\d{8})")
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


class CheckpointWriteError(OSError):
    """A checkpoint that could not be written; those before it are untouched."""


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Writes the checkpoint of a step and removes all but the last `keep`.

    Args:
        folder: The run's folder of checkpoints.
        step: Steps done.
        model: Its parameters and buffers are saved.
        optimizer: Its state is saved by parameter name.
        state: Further plain data.
        keep: At least 1.

    Raises:
        CheckpointWriteError: The disk is full or the folder cannot be written.
    """
    target, staging = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        save_tensors(dict(model.state_dict()), staging / MODEL)
        save_tensors(optimizer_tensors(model, optimizer), staging / OPTIMIZER)
        _write(staging / STATE, json.dumps({**state, "step": step}, indent=1).encode())
        if target.exists():
            shutil.rmtree(target)
        staging.replace(target)
        _sync_folder(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise CheckpointWriteError(
            f"the checkpoint of step {step} could not be written to {folder}: {error}; the last good one is "
            f"{last_checkpoint(folder) or 'none'}"
        ) from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


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


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts back the model's and the optimizer's tensors."""
    model.load_state_dict(safetensors.torch.load_file(checkpoint / MODEL))
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in safetensors.torch.load_file(checkpoint / OPTIMIZER).items():
        name, _, slot = key.rpartition("|")
        states.setdefault(name, {})[slot] = tensor
    for name, parameter in model.named_parameters():
        if name in states:
            optimizer.state[parameter] = {
                slot: tensor if slot == "step" else tensor.to(parameter.device) for slot, tensor in states[name].items()
            }


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's tensors as "parameter name|slot"."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}|{slot}"] = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return found


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
    "CheckpointWriteError",
    "checkpoints",
    "last_checkpoint",
    "read_state",
    "restore",
    "save_checkpoint",
    "save_tensors",
]
