"""Exported form of a model as an object that `pipeline`, evaluation and prediction take."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from ...configuration.model_task import CLASSIFICATION, DETECTION, model_task
from ..checkpoints import locate
from .forms import BackendError, check_files, choose_form
from .raw_pixels import RawPixels
from .sessions import Session, open_session

PROBABILITIES = "probabilities"  # output of a classifier's form with preprocessing, beside its logits
_OUTPUTS = {CLASSIFICATION: ImageClassifierOutput, DETECTION: DetrObjectDetectionOutput}


class ExportedModel(nn.Module):
    """Model whose forward pass is computed by ONNX Runtime or OpenVINO on the CPU.

    Args:
        config: Configuration of the model that was exported.
        session: Loaded file.
        record: Entry of `export.json`.
        source: Folder, for messages.

    A form with preprocessing (`record["preprocessing"]`) takes uint8 pixels (B, height, width, 3) of any size in place
    of normalised images. `image_processor` then is the processor to use with it, else None, and `largest_batch` is 1,
    because images of a data set differ in size.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: Any, session: Session, record: dict[str, Any], source: str | Path) -> None:
        super().__init__()
        self.config, self.session, self.record, self.source = config, session, record, source
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells where the outputs go
        self.output_class = _OUTPUTS.get(model_task(config.to_dict()) or "", BaseModelOutputWithPooling)
        self.image_processor = RawPixels() if record.get("preprocessing") else None
        self.largest_batch = 1 if self.image_processor is not None else None
        fixed = record.get("image_hw") if self.image_processor is None else None
        self.image_hw: tuple[int, int] | None = tuple(fixed) if fixed else None

    @property
    def device(self) -> torch.device:
        """Device of the outputs; the computation itself is on the CPU."""
        return self.place.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the pixels that the graph takes."""
        return torch.float32 if self.image_processor is None else torch.uint8

    def can_generate(self) -> bool:
        """Returns False; `pipeline` asks."""
        return False

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None, **_: Any) -> Any:
        """Computes the output of the model that was exported, in float32.

        Args:
            pixel_values: Normalised images (B, C, height, width); for a form with preprocessing uint8 pixels
                (B, height, width, 3).
            pixel_mask: Mask (B, height, width) of a detector's images; the graph takes images without padding only.

        Raises:
            ValueError: The images are padded, or of another size or kind than the graph's.
        """
        if self.image_processor is not None:
            self._check_raw(pixel_values)
        if pixel_mask is not None and not bool(pixel_mask.bool().all()):
            raise ValueError(f"{self.source}: the exported graph takes images without padding: give one size at a time")
        if self.image_hw is not None and tuple(pixel_values.shape[-2:]) != self.image_hw:
            height, width = self.image_hw
            raise ValueError(
                f"{self.source}: the exported graph takes images of {height} x {width} pixels, got "
                f"{pixel_values.shape[-2]} x {pixel_values.shape[-1]}"
            )
        values = self.session(pixel_values.to(self.dtype))
        named = zip(self.session.outputs, values, strict=True)
        return self.output_class(**{name: value.to(self.device) for name, value in named if name != PROBABILITIES})

    def _check_raw(self, pixels: torch.Tensor) -> None:
        """Raises a `ValueError` for anything but pixels as they are in an image."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            kind = str(pixels.dtype).removeprefix("torch.")
            raise ValueError(
                f"{self.source}: the exported graph preprocesses images itself and takes uint8 pixels (batch, height, "
                f"width, 3), got {kind} {tuple(pixels.shape)}; the model's `image_processor` makes them"
            )


def load_exported(source: str | Path, backend: str | None = None, revision: str | None = None) -> ExportedModel:
    """Loads an exported form of a model, with its labels, for `pipeline` or for calls with `pixel_values`.

    Args:
        source: Folder or Hub id with `export.json`.
        backend: "onnx", "onnx-int8", "openvino", ...; None takes the only form.
        revision: Branch, tag or commit on the Hub.

    Raises:
        BackendError: There is no such form, its files were changed, or its runtime is missing.
    """
    folder = locate(source, revision)
    form = choose_form(folder, backend)
    if form is None and backend is None:
        raise BackendError(f"{source} has weights beside exported forms, or none: name the form to load as the backend")
    if form is None:
        raise BackendError(f"{source}: {backend!r} is no exported form; load the weights with `from_pretrained`")
    record = check_files(folder, form)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # `pipeline` knows models by the names of their classes
    architectures = getattr(config, "architectures", None) or ["ExportedModel"]
    named = type(str(architectures[0]), (ExportedModel,), {"__doc__": ExportedModel.__doc__})
    model: ExportedModel = named(config, open_session(folder / form.file, form), record, source)
    return model.eval()


__all__ = ["PROBABILITIES", "ExportedModel", "load_exported"]
