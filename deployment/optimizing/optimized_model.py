"""Model in the form of a candidate, as `optimize` returns it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForObjectDetection

from ...configuration.model_task import DETECTION, model_task
from ...data.whole_files import write_whole
from ...hub.checkpoints import read_config
from ...hub.exported.exported_model import ExportedModel
from ...hub.exported.forms import (
    RECORD,
    Form,
    changed_weights,
    check_files,
    file_hash,
    read_records,
    record_text,
)
from ...hub.exported.sessions import open_session
from ...hub.inference_loading import load_for_inference, load_processor
from ...hub.ready_model import ReadyModel
from ..exports.graphs import trace
from ..exports.token_merging import merge_in
from ..exports.writers import write_form
from .candidates import Candidate
from .measuring import Optimization
from .quantized_candidate import write_quantized

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class OptimizedModel(ReadyModel):
    """Model in the fastest form that was found on this machine.

    It is called with `pixel_values`, and taken by `pipeline` (with its `image_processor`) and as the `backend` of
    `predict` and `evaluate`.
    """

    optimization: Optimization  # what was measured and chosen, and why


class FixedBatches(nn.Module):
    """Compiled model, which is given batches of one size only: smaller ones are filled up, larger ones are cut.

    Args:
        model: Classifier in evaluation mode.
        batch_size: Size of the batches.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.model, self.batch_size = model, batch_size
        self.compiled = torch.compile(model, dynamic=False)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Maps images (B, C, height, width) to the output of the model, of which `logits` are kept."""
        rows = []
        for first in range(0, len(pixel_values), self.batch_size):
            part = pixel_values[first : first + self.batch_size]
            filled = part
            if len(part) < self.batch_size:
                filled = torch.cat([part, part[-1:].expand(self.batch_size - len(part), -1, -1, -1)])
            output = self.compiled(pixel_values=filled)
            rows.append(output.logits[: len(part)].clone())
        return type(output)(logits=torch.cat(rows))


@dataclass(frozen=True)
class Calibration:
    """Images for int8.

    Args:
        data: Labelled images that int8 is calibrated with and measured on; None takes a run's own.
        pixels: Normalised images, each (C, height, width), that are used in place of labelled ones; None uses those.
        reference: File with the answers of eager fp32 for `pixels`.
        until: Time of `time.monotonic` from which no further choice of layers is tried.
    """

    data: str | None = None
    pixels: Sequence[torch.Tensor] | None = None
    reference: Path | None = None
    until: float = float("inf")


def open_candidate(
    candidate: Candidate,
    folder: Path,
    work: Path,
    threads: int | None,
    batch_size: int,
    calibration: Calibration | None = None,
) -> OptimizedModel:
    """Loads a model in the form of a candidate; an exported file is written once, and kept in a folder.

    Args:
        candidate: Way to compute.
        folder: Folder of the model.
        work: Folder for exported files.
        threads: Number of threads; None takes each engine's default.
        batch_size: Images at once.
        calibration: Images for int8, where no int8 file is there yet; None takes a run's own.

    Raises:
        CheckpointError: The model cannot be loaded.
        BackendError: The form cannot be made or run.
        ValueError: Tokens of this model cannot be merged.
    """
    if candidate.form is not None:
        return _open_exported(candidate, folder, work, threads, batch_size, calibration or Calibration())
    model, processor = _weights(folder), load_processor(folder)
    dtype = _DTYPES[candidate.precision]
    if candidate.token_merging:
        merge_in(model, candidate.token_merging)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu", dtype).eval()
    runner = FixedBatches(model, batch_size) if candidate.compiled else model
    kind = _named(type(model).__name__)
    return kind(
        runner, model.config, processor, folder, candidate.name, dtype=dtype, threads=threads, batch_size=batch_size
    )


def _weights(folder: Path) -> Any:
    """Loads the weights, without the libraries of checkpoints that must be converted first."""
    if model_task(read_config(folder)) == DETECTION:
        return load_for_inference(AutoModelForObjectDetection, folder, "an object detector")
    return load_for_inference(AutoModelForImageClassification, folder, "an image classifier")


def _named(name: str) -> type[OptimizedModel]:
    """Class of a ready model under the name of the model's class, by which `pipeline` knows it."""
    return type(name, (OptimizedModel,), {"__doc__": OptimizedModel.__doc__})


def _open_exported(
    candidate: Candidate, folder: Path, work: Path, threads: int | None, batch_size: int, calibration: Calibration
) -> OptimizedModel:
    form = candidate.form
    assert form is not None
    place = _exported_folder(candidate, form, folder, work, calibration)
    record = check_files(place, form)
    config, processor = AutoConfig.from_pretrained(folder, trust_remote_code=False), load_processor(folder)
    name = str((getattr(config, "architectures", None) or ["ExportedModel"])[0])
    exported = ExportedModel(config, open_session(place / form.file, form, threads), record, folder).eval()
    return _named(name)(exported, config, processor, folder, candidate.name, batch_size=batch_size)


def _exported_folder(candidate: Candidate, form: Form, folder: Path, work: Path, calibration: Calibration) -> Path:
    """Folder with the file of a form: the model's own if it was exported there, else one below `work`."""
    own = work / form.name
    if form.name in read_records(own):
        return own
    record = read_records(folder).get(form.name)
    same = record is not None and record.get("token_merging", 0) == candidate.token_merging
    if record is not None and same and changed_weights(folder, record) is None:
        return folder
    if form.precision == "int8" and calibration.pixels is None:
        from ..exporting import export  # which imports evaluation, and would slow the start of every measurement

        return export(
            folder, form.format, precision="int8", output=own, data=calibration.data,
            token_merging=candidate.token_merging,
        ).folder  # fmt: skip
    model, processor = _weights(folder), load_processor(folder)
    if candidate.token_merging:
        merge_in(model, candidate.token_merging)
    traced = trace(model, processor)
    if form.precision == "int8":
        assert calibration.pixels is not None
        assert calibration.reference is not None
        reference = safetensors.torch.load_file(calibration.reference)
        write_quantized(own, form, traced, model.config, calibration.pixels, reference, calibration.until)
        return own
    write_form(traced, own, form)
    files = [name for name in form.files if (own / name).is_file()]
    record = {
        "format": form.format,
        "precision": form.precision,
        "image_hw": None if traced.image_hw is None else list(traced.image_hw),
        "outputs": traced.outputs,
        "files": {name: file_hash(own / name) for name in files},
    }
    write_whole(own / RECORD, record_text({form.name: record}))
    return own


__all__ = ["Calibration", "FixedBatches", "OptimizedModel", "open_candidate"]
