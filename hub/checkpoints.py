"""Reading a checkpoint as data: configuration, tensors, image processor. Never code, never a pickled object."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from torch import nn
from transformers import PreTrainedModel

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".tar")


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete or not safe to read; the message names the file."""


@dataclass
class Checkpoint:
    """What was read.

    Args:
        name: Where it came from, for messages.
        state: The tensors.
        config: The content of `config.json`; empty for a bare file of weights.
        processor: The content of `preprocessor_config.json`, or None.
        folder: The local folder, where there is one.
    """

    name: str
    state: dict[str, torch.Tensor]
    config: dict[str, Any]
    processor: dict[str, Any] | None = None
    folder: Path | None = None


def locate(source: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The local file or folder of a source: itself, or the downloaded snapshot of a Hub id.

    Raises:
        CheckpointError: Neither a path nor a Hub id.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    name = str(source).removeprefix("hf-hub:").removeprefix("hf_hub:")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise CheckpointError(f"{source} is no file or folder, and no Hub id (user/name)") from None
    if name.count("/") != 1:
        raise CheckpointError(f"{source} is no file or folder; a Hub id looks like user/name")
    files = ["*.json", "*.safetensors"]
    return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=files))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a folder (with `config.json`), or in a bare `.safetensors` or DeiT `.pth` file."""
    if path.is_file():
        return Checkpoint(str(path), read_weight_file(path), {}, folder=None)
    config_file = path / "config.json"
    if not config_file.is_file():
        raise CheckpointError(f"{path} holds no config.json")
    config = read_json(config_file)
    processor_file = path / "preprocessor_config.json"
    return Checkpoint(
        name=str(path),
        state=_read_weights(path),
        config=config,
        processor=read_json(processor_file) if processor_file.is_file() else None,
        folder=path,
    )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; anything else is a `CheckpointError` that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / WEIGHTS).is_file():
        return read_weight_file(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        shards = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        state: dict[str, torch.Tensor] = {}
        for shard in shards:
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise CheckpointError(f"{folder / INDEX} names {shard!r}, which is not in the folder")
            state |= read_weight_file(folder / shard)
        return state
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickled:
        raise CheckpointError(
            f"{folder} holds weights only as a pickle ({', '.join(pickled)}), which can run code when read; "
            f"convert them to {WEIGHTS} first"
        )
    raise CheckpointError(f"{folder} holds no {WEIGHTS}")


def read_weight_file(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pth` as DeiT's authors publish it (read with `weights_only`)."""
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is no readable safetensors file: {error}") from error
    if file.suffix not in (".pth", ".pt"):
        raise CheckpointError(f"{file} must be a .safetensors file or a .pth of DeiT's authors, got {file.suffix!r}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and other errors here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file} holds more than tensors, or is damaged, and was not loaded: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise CheckpointError(f"{file} must hold tensors by name, by themselves or under 'model'")
    return state


def floating_dtype(state: dict[str, torch.Tensor]) -> torch.dtype:
    """The type of the first floating-point tensor; counters and masks are whole numbers. fp32 where there is none."""
    return next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), torch.float32)


def checkpoint_of(model: nn.Module) -> Checkpoint:
    """The checkpoint that a model of transformers in memory would save."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"expected a model of transformers, got {type(model).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        checkpoint = read_checkpoint(Path(folder))
    checkpoint.name, checkpoint.folder = type(model).__name__, None
    return checkpoint


__all__ = [
    "WEIGHTS",
    "Checkpoint",
    "CheckpointError",
    "checkpoint_of",
    "floating_dtype",
    "locate",
    "read_checkpoint",
    "read_json",
    "read_weight_file",
]
