"""Functions that write tensors as safetensors, synced to the disk, and return their hash."""

import hashlib
import os
from pathlib import Path

import safetensors.torch
import torch


def save_tensors(tensors: dict[str, torch.Tensor], file: Path) -> str:
    """Writes tensors as safetensors, waits until they are on the disk, and returns the file's SHA-256.

    Tensors that share memory, as the heads of some detectors do, are written under each of their names.
    """
    whole: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        content = tensor.detach().cpu().contiguous()
        place = content.untyped_storage().data_ptr()
        whole[name] = content.clone() if place in places else content
        places.add(place)
    return write_synced(file, safetensors.torch.save(whole, {"format": "pt"}))


def write_synced(file: Path, content: bytes) -> str:
    """Writes a file, waits until it is on the disk, and returns its SHA-256."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(content).hexdigest()


def file_sum(file: Path) -> str:
    """Returns the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


__all__ = ["file_sum", "save_tensors", "write_synced"]
