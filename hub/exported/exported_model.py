"""Exported form of a model as an object that `pipeline`, evaluation and prediction take."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from ...configuration.model_task import CLASSIFICATION, DETECTION, model_task
from ..inference_loading import load_processor
from .forms import BackendError, check_files, choose_form, locate_model
from .raw_pixels import RawBoxPixels, RawPixels
from .sessions import Session, open_session

# Outputs of forms with preprocessing beside those of the model: a classifier's, and a detector's.
PROBABILITIES, BOXES, SCORES, LABELS = "probabilities", "boxes", "scores", "labels"
_READ = (PROBABILITIES, BOXES, SCORES, LABELS)
_OUTPUTS = {CLASSIFICATION: ImageClassifierOutput, DETECTION: DetrObjectDetectionOutput}


class ExportedModel(nn.Module):
    """Model whose forward pass is computed by ONNX Runtime or OpenVINO on the CPU.

    Args:
        config: Configuration of the model that was exported.
        session: Loaded file.
        record: Entry of `export.json`.
        source: Folder, for messages.
        decoder: Image processor of the model that was exported, which a detector's form with preprocessing needs.

    A form with preprocessing (`record["preprocessing"]`) takes uint8 pixels (B, height, width, 3) of any size in place
    of normalised images; a detector's takes them as (B, 3, height, width). `image_processor` then is the processor to
    use with it, else None, and `largest_batch` is 1, because images of a data set differ in size.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    explainable = False  # its attention, features and gradients are out of reach

    def __init__(
        self, config: Any, session: Session, record: dict[str, Any], source: str | Path, decoder: Any = None
    ) -> None:
        super().__init__()
        task = model_task(config.to_dict())
        self.config, self.session, self.record, self.source = config, session, record, source
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells where the outputs go
        self.output_class = _OUTPUTS.get(task or "", BaseModelOutputWithPooling)
        self.image_processor: RawPixels | None = None
        if record.get("preprocessing"):
            self.image_processor = RawBoxPixels(decoder) if task == DETECTION else RawPixels()
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
                (B, height, width, 3), of a detector (B, 3, height, width).
            pixel_mask: Mask (B, height, width) of a detector's images; the graph takes images without padding only.

        Raises:
            ValueError: The images are padded, or of another size or kind than the graph's.
        """
        if self.image_processor is not None:
            self._check_raw(pixel_values)
            if self.image_processor.channels_first:
                pixel_values = pixel_values.permute(0, 2, 3, 1)
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
        return self.output_class(**{name: value.to(self.device) for name, value in named if name not in _READ})

    def _check_raw(self, pixels: torch.Tensor) -> None:
        """Raises a `ValueError` for anything but pixels as they are in an image."""
        first = self.image_processor is not None and self.image_processor.channels_first
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1 if first else -1] != 3:
            kind, shape = str(pixels.dtype).removeprefix("torch."), "3, height, width" if first else "height, width, 3"
            raise ValueError(
                f"{self.source}: the exported graph preprocesses images itself and takes uint8 pixels (batch, {shape}),"
                f" got {kind} {tuple(pixels.shape)}; the model's `image_processor` makes them"
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
    folder = locate_model(source, backend, revision)
    form = choose_form(folder, backend)
    if form is None and backend is None:
        raise BackendError(f"{source} has weights beside exported forms, or none: name the form to load as the backend")
    if form is None:
        raise BackendError(f"{source}: {backend!r} is no exported form; load the weights with `from_pretrained`")
    record = check_files(folder, form)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    decoder = load_processor(folder) if form.pixels and model_task(config.to_dict()) == DETECTION else None
    # `pipeline` knows models by the names of their classes
    architectures = getattr(config, "architectures", None) or ["ExportedModel"]
    named = type(str(architectures[0]), (ExportedModel,), {"__doc__": ExportedModel.__doc__})
    model: ExportedModel = named(config, open_session(folder / form.file, form), record, source, decoder)
    return model.eval()


__all__ = ["BOXES", "LABELS", "PROBABILITIES", "SCORES", "ExportedModel", "load_exported"]
