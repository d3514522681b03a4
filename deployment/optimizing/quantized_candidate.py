"""int8 files for `optimize`, calibrated on unlabelled images: their answers must be those of eager fp32."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...data.whole_files import write_whole
from ...hub.exported.exported_model import ExportedModel
from ...hub.exported.forms import RECORD, Form, file_hash, record_text
from ...hub.exported.sessions import open_session
from ..exports.graphs import Traced
from ..exports.quantization import Quantizer, quantize_within
from .answers import Answers, compared_answers, named_answers


def write_quantized(
    own: Path, form: Form, traced: Traced, config: Any, pixels: Sequence[torch.Tensor], reference: Answers, until: float
) -> None:
    """Writes an int8 file and its `export.json`, with as few layers in fp32 as agreement with eager fp32 needs.

    The choices of layers are those of `quantize_within`. When the time is over, the file stays as it is: whether it is
    used is decided by its answers.

    Args:
        own: Folder to write.
        form: Form to write, of precision "int8".
        traced: Graph of the model.
        config: Configuration of the model.
        pixels: Normalised images, each (C, height, width), to calibrate with and to compare answers on.
        reference: Answers of eager fp32 for them.
        until: Time of `time.monotonic` from which no further choice is tried.

    Raises:
        BackendError: No choice agrees with eager fp32, or the form cannot be written.
    """
    record: dict[str, Any] = {
        "format": form.format,
        "precision": form.precision,
        "image_hw": None if traced.image_hw is None else list(traced.image_hw),
        "outputs": traced.outputs,
    }
    several = getattr(config, "problem_type", None) == "multi_label_classification"

    def compared(file: Path) -> Any:
        model = ExportedModel(config, open_session(file, form, 1), record, file.name).eval()
        found: Answers = {}
        for number, image in enumerate(pixels):
            if number and time.monotonic() > until:
                break
            found |= named_answers(model(pixel_values=image[None]), number)
        return compared_answers(reference, found, several, int(config.num_labels))

    def fault(file: Path) -> str | None:
        reason: str | None = None if time.monotonic() > until else compared(file).reason
        return reason

    file = own / form.file
    with Quantizer(traced, form, [image[None] for image in pixels]) as quantizer:
        left, _ = quantize_within(quantizer, file, fault, lambda trial: compared(trial).difference)
        record["int8"] = {
            "calibration_images": len(pixels), "calibrated_on": "the given images",
            "layers": len(quantizer.layers), "layers_in_fp32": left,
        }  # fmt: skip
    record["files"] = {name: file_hash(own / name) for name in form.files if (own / name).is_file()}
    write_whole(own / RECORD, record_text({form.name: record}))


__all__ = ["write_quantized"]
