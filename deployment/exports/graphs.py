"""Models as graphs with one input and named outputs, as exported files have them."""

import builtins
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
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

    A graph takes the size of its image processor. A detector's takes any size where its image processor makes several,
    and a ViT's of this package, which resamples its position embeddings, where `dynamic_size` is given.

    Args:
        model: Classifier, detector or backbone; it is put into evaluation mode and float32.
        processor: Its image processor.
        dynamic_size: Whether the images of a classifier or backbone may have any size.

    Raises:
        BackendError: The model cannot be traced, or its image size is fixed.
    """
    graph = Graph(model.eval().float())
    detects = model_task(model) == DETECTION
    made = made_size(processor) if detects else None
    fixed = not dynamic_size and (not detects or made is not None)
    if dynamic_size and not detects and not isinstance(model, HubViTPreTrainedModel):
        raise BackendError(
            f"{type(model).__name__} takes one image size: only a ViT or DeiT of this package resamples its position "
            "embeddings to others"
        )
    height, width = made if made and fixed else _sample_size(model, processor, fixed)
    channels = int(getattr(model.config, "num_channels", 3) or 3)
    sample = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    batch, dynamic = torch.export.Dim("batch", min=1, max=MOST_IMAGES), torch.export.Dim.DYNAMIC
    shapes = {0: batch} if fixed else {0: batch, 2: dynamic, 3: dynamic}
    try:
        with torch.no_grad(), _lengths_as_sizes(model):
            names = graph.outputs[: len(graph(sample))]
            program = torch.export.export(graph, (sample,), dynamic_shapes=(shapes,))
            _remove_assertions(program)
    except Exception as error:  # tracing runs the model's code and raises errors of any kind
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"{type(model).__name__} cannot be traced for export: {reason}") from error
    return Traced(program, names, (height, width) if fixed else None, sample)


def _remove_assertions(program: Any) -> None:
    """Removes the checks of values from a program, for which neither ONNX nor OpenVINO has an operation.

    torch (2.14) has no public names for these operations.
    """
    operations = torch.ops.aten
    checks = (operations._assert_async.default, operations._assert_async.msg, operations._assert_scalar.default)
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target in checks:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def made_size(processor: Any) -> tuple[int, int] | None:
    """Height and width in pixels that an image processor gives to all images; None where it gives several."""
    sizes = {
        tuple(processor(Image.new("RGB", size), return_tensors="pt")["pixel_values"].shape[-2:])
        for size in ((64, 48), (48, 64), (60, 60))
    }
    height, width = sizes.pop()
    return None if sizes else (int(height), int(width))


@contextlib.contextmanager
def _lengths_as_sizes(model: nn.Module) -> Iterator[None]:
    """Makes `len(tensor)` in a model's own code the size of the first axis, which may be unknown while it is traced.

    Python's `len` must give a number, by which the batch would become a constant: RT-DETR and its relatives in
    transformers (5.23) count their images so.
    """

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, torch.Tensor) else builtins.len(value)

    names = {type(part).__module__ for part in model.modules()}
    modules = [sys.modules[name] for name in names if name.startswith("transformers.models.")]
    try:
        for module in modules:
            vars(module)["len"] = length
        yield
    finally:
        for module in modules:
            vars(module).pop("len", None)


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


__all__ = ["MOST_IMAGES", "Graph", "Traced", "made_size", "trace"]
