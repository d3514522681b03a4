"""Partial counts of a running evaluation, kept in files so that a killed evaluation can be resumed."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import safetensors.torch
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open

from ...data.whole_files import write_whole
from ...hub.folders import TargetError, check_target

logger = logging.getLogger("vithub")
EVERY = 32  # number of batches between saves


class Counts(Protocol):
    """Counts of an evaluation."""

    def tensors(self) -> list[torch.Tensor]:
        """Returns all counts as tensors."""

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the counts by tensors in the form of `tensors`."""


class PartialCounts:
    """Partial counts of one process, in a folder shared by all processes of an evaluation.

    Args:
        folder: Folder of the partial counts; removed by `remove`.
        about: Description of the evaluation, as JSON values; counts of another evaluation are an error.
        made_from: Hashes of model and data; counts with other hashes are discarded with a warning, and counting starts
            anew.
        process: Index of this process.
        processes: Number of processes that share the images.
        resume: Whether to continue from saved counts; otherwise they are discarded.

    Raises:
        TargetError: With `resume`, the folder holds counts of another evaluation, or it cannot be written.
    """

    def __init__(
        self, folder: Path, about: dict[str, Any], made_from: dict[str, str], process: int, processes: int, resume: bool
    ) -> None:
        self.folder, self.about = folder, json.dumps({**about, "processes": processes}, sort_keys=True)
        self.made_from = made_from
        self.file = folder / f"counts-{process:03d}.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.file.unlink(missing_ok=True)
        except OSError as error:
            raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error

    def load(self, counts: Counts) -> tuple[int, list[int]]:
        """Restores saved counts; returns the number of counted batches, and the undecodable rows."""
        if not self.file.is_file():
            return 0, []
        try:
            saved = self._read(len(counts.tensors()))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged, all is counted anew: %s", self.file, " ".join(str(error).split()))
            return 0, []
        if saved.about != self.about:
            raise TargetError(
                f"{self.folder} holds the counts of another evaluation: {saved.about}, not {self.about}; "
                "evaluate without resuming to begin anew"
            )
        if other := [name for name, value in self.made_from.items() if saved.made_from.get(name) != value]:
            logger.warning("%s was counted with other %s, all is counted anew", self.file, " and ".join(other))
            return 0, []
        counts.load(saved.tensors)
        return saved.batches, saved.bad

    def _read(self, count: int) -> "_Saved":
        """Reads the file's content and verifies its hash."""
        with safe_open(self.file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = [stored.get_tensor(str(number)) for number in range(count)]
        if metadata["hash"] != _hash(tensors, metadata["about"], metadata["state"]):
            raise ValueError("the hash of its content is another")
        state = json.loads(metadata["state"])
        return _Saved(tensors, metadata["about"], state["made_from"], state["batches"], state["bad"])

    def save(self, counts: Counts, batches: int, bad: list[int]) -> None:
        """Saves the counts after every `EVERY` batches; the file is replaced atomically."""
        if batches % EVERY:
            return
        tensors: dict[str, torch.Tensor] = {str(n): tensor.contiguous() for n, tensor in enumerate(counts.tensors())}
        state = json.dumps({"batches": batches, "bad": bad, "made_from": self.made_from})
        metadata = {"about": self.about, "state": state, "hash": _hash(list(tensors.values()), self.about, state)}
        write_whole(self.file, safetensors.torch.save(tensors, metadata))

    def remove(self) -> None:
        """Removes the folder after the evaluation is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def partial_counts(
    out: Path, about: dict[str, Any], made_from: dict[str, str], accelerator: Accelerator, resume: bool
) -> PartialCounts:
    """Opens the partial counts of an evaluation into `out`, in a hidden folder beside it until it is complete.

    Raises:
        TargetError: The folder cannot be written, or `out` holds files already.
    """
    target = out.expanduser().absolute()
    if accelerator.is_main_process:
        check_target(target)
    folder = target.with_name(f".{target.name}.partial")
    return PartialCounts(folder, about, made_from, accelerator.process_index, accelerator.num_processes, resume)


class _Saved(NamedTuple):
    """Content of a file: counts, description, hashes, number of counted batches, undecodable rows."""

    tensors: list[torch.Tensor]
    about: str
    made_from: dict[str, str]
    batches: int
    bad: list[int]


def _hash(tensors: Sequence[torch.Tensor], *texts: str) -> str:
    digest = hashlib.sha256("\0".join(texts).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


__all__ = ["EVERY", "Counts", "PartialCounts", "partial_counts"]
