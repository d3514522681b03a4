"""Models as graphs with one input and named outputs, as exported files have them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...configuration.model_task import CLASSIFICATION, DETECTION, model_task
from ...data.image_processing import pixel_format
from ...hub.exported.forms import BackendError
from ...modeling.modeling_vit import HubViTPreTrainedModel

_OUTPUTS = {CLASSIFICATION: ["logits"], DETECTION: ["logits", "pred_boxes"]}
MOST_IMAGES = 1024  # in a batch of an exported graph


class Graph(nn.Module):
    """Model that maps `pixel_values` to a tuple of its outputs.

    Args:
        model: Classifier, detector or backbone in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.outputs = _OUTPUTS.get(model_task(model) or "", ["last_hidden_state", "pooler_output"])

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps normalised images (B, C, height, width) to the outputs that the model has, in order."""
        found = self.model(pixel_values=pixel_values)
        return tuple(found[name] for name in self.outputs if found.get(name) is not None)


@dataclass(frozen=True)
class Traced:
    """Graph of a model with the shapes that it takes.

    Args:
        program: Exported program of torch.
        outputs: Names of its outputs, in order.
        image_hw: Height and width of the images in pixels; None if they may differ.
        sample: Pixels that the graph was traced with, (2, C, height, width).
    """

    program: Any
    outputs: list[str]
    image_hw: tuple[int, int] | None
    sample: torch.Tensor


def trace(model: Any, processor: Any, dynamic_size: bool = False) -> Traced:
    """Traces a model for any batch size, and for any image size where the model takes one.

    A detector's graph takes any image size. A classifier's or backbone's takes the size of its image processor, unless
    `dynamic_size` is given for a ViT of this package, which resamples its position embeddings.

    Args:
        model: Classifier, detector or backbone; it is put into evaluation mode and float32.
        processor: Its image processor.
        dynamic_size: Whether the images of a classifier or backbone may have any size.

    Raises:
        BackendError: The model cannot be traced, or its image size is fixed.
    """
    graph = Graph(model.eval().float())
    fixed = not dynamic_size and model_task(model) != DETECTION
    if dynamic_size and model_task(model) != DETECTION and not isinstance(model, HubViTPreTrainedModel):
        raise BackendError(
            f"{type(model).__name__} takes one image size: only a ViT or DeiT of this package resamples its position "
            "embeddings to others"
        )
    height, width = _sample_size(model, processor, fixed)
    channels = int(getattr(model.config, "num_channels", 3) or 3)
    sample = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    batch, dynamic = torch.export.Dim("batch", min=1, max=MOST_IMAGES), torch.export.Dim.DYNAMIC
    shapes = {0: batch} if fixed else {0: batch, 2: dynamic, 3: dynamic}
    try:
        with torch.no_grad():
            names = graph.outputs[: len(graph(sample))]
            program = torch.export.export(graph, (sample,), dynamic_shapes=(shapes,))
    except Exception as error:  # tracing runs the model's code and raises errors of any kind
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"{type(model).__name__} cannot be traced for export: {reason}") from error
    return Traced(program, names, (height, width) if fixed else None, sample)


def _sample_size(model: Any, processor: Any, fixed: bool) -> tuple[int, int]:
    """Height and width to trace with: the processor's, or another one where the size may differ.

    At the trained grid a ViT does not resample its position embeddings, which a graph for other sizes must do.
    """
    if model_task(model) == DETECTION:
        return 192, 256
    height, width = pixel_format(processor).image_hw
    if fixed:
        return height, width
    patch_height, patch_width = model.config.patch_hw
    return height + patch_height, width + 2 * patch_width


__all__ = ["MOST_IMAGES", "Graph", "Traced", "trace"]
