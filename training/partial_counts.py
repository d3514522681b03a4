"""Counts of an evaluation under way, kept in files so that one that was killed can go on."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from safetensors import safe_open

from ..hub.folders import TargetError

EVERY = 32  # batches from one save to the next


class Counts(Protocol):
    """What is counted in an evaluation."""

    def tensors(self) -> list[torch.Tensor]:
        """All of it."""

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Takes what `tensors` gave."""


class PartialCounts:
    """The file of one process in a folder that all of an evaluation share.

    Args:
        folder: Of the evaluation; removed by `remove`.
        about: What is evaluated, plain data; counts of something else are not gone on with.
        process: Number of this process.
        processes: How many share the images.
        resume: Go on with what is there; otherwise it is discarded.

    Raises:
        TargetError: With `resume`, the folder holds counts of something else, or cannot be written.
    """

    def __init__(self, folder: Path, about: dict[str, Any], process: int, processes: int, resume: bool) -> None:
        self.folder, self.about = folder, json.dumps({**about, "processes": processes}, sort_keys=True)
        self.file = folder / f"counts-{process:03d}.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.file.unlink(missing_ok=True)
        except OSError as error:
            raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error

    def load(self, counts: Counts) -> tuple[int, list[int]]:
        """Puts saved counts back; returns the number of batches that are in them, and undecodable rows."""
        if not self.file.is_file():
            return 0, []
        with safe_open(self.file, framework="pt") as saved:
            metadata = saved.metadata()
            tensors = [saved.get_tensor(str(number)) for number in range(len(counts.tensors()))]
        if metadata["about"] != self.about:
            raise TargetError(
                f"{self.folder} holds the counts of another evaluation: {metadata['about']}, not {self.about}; "
                "evaluate without resuming to begin anew"
            )
        counts.load(tensors)
        state = json.loads(metadata["state"])
        return int(state["batches"]), list(state["bad"])

    def save(self, counts: Counts, batches: int, bad: list[int]) -> None:
        """Keeps the counts of so many batches, every `EVERY` of them; the file is replaced as a whole."""
        if batches % EVERY:
            return
        tensors: dict[str, torch.Tensor] = {str(n): tensor.contiguous() for n, tensor in enumerate(counts.tensors())}
        state = json.dumps({"batches": batches, "bad": bad})
        staging = self.file.with_suffix(".new")
        staging.write_bytes(safetensors.torch.save(tensors, {"about": self.about, "state": state}))
        staging.replace(self.file)

    def remove(self) -> None:
        """Removes the folder, when the evaluation is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


__all__ = ["EVERY", "Counts", "PartialCounts"]
