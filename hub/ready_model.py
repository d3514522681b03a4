"""Loaded model that is run in place of a folder's weights: an optimised or exported form of them."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checkpoints import CheckpointError


class ReadyModel(nn.Module):
    """Model that gives the ordinary output class in float32, whatever it computes with, and that `pipeline` takes.

    Args:
        runner: Module that maps `pixel_values` (B, C, height, width) to an output of transformers.
        config: Configuration of the model.
        image_processor: Image processor of the model.
        folder: Folder whose weights it stands for.
        described: What computes the answers, such as "openvino fp32".
        dtype: Data type of the pixels that the runner takes.
        threads: Number of threads of torch during a forward pass; None leaves it as it is.
        batch_size: Number of images at once at which it is fastest.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(
        self,
        runner: nn.Module,
        config: Any,
        image_processor: Any,
        folder: Path,
        described: str,
        *,
        dtype: torch.dtype = torch.float32,
        threads: int | None = None,
        batch_size: int = 1,
    ) -> None:
        super().__init__()
        self.runner, self.config, self.image_processor = runner, config, image_processor
        self.folder, self.described = folder, described
        self.runner_dtype, self.threads, self.batch_size = dtype, threads, batch_size
        self.masked = "pixel_mask" in inspect.signature(runner.forward).parameters

    @property
    def device(self) -> torch.device:
        """Device of the runner's parameters and of the outputs."""
        return next((parameter.device for parameter in self.runner.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the pixels that callers give."""
        return torch.float32

    def can_generate(self) -> bool:
        """Returns False; `pipeline` asks."""
        return False

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None, **_: Any) -> Any:
        """Computes the output of the model, with its tensors in float32.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            pixel_mask: Mask (B, height, width) of a detector's images, True or 1 where there is an image.
        """
        inputs = {"pixel_values": pixel_values.to(self.device, self.runner_dtype)}
        if pixel_mask is not None and self.masked:
            inputs["pixel_mask"] = pixel_mask.to(self.device)
        with torch_threads(self.threads):
            output = self.runner(**inputs)
        for name, value in output.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                output[name] = value.float()
        return output


class HeldModel(ReadyModel):
    """Model in the memory of the caller, which belongs to no folder and stays on the device where the caller put it."""

    def to(self, *_: Any, **__: Any) -> "HeldModel":
        """Leaves the model where it is."""
        return self


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Context in which torch computes with a number of threads; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ready_for(folder: Path, ready: ReadyModel) -> tuple[ReadyModel, Any]:
    """Returns a loaded model and its image processor, for use in place of a folder's weights.

    Raises:
        CheckpointError: It was made of another folder.
    """
    if folder.resolve() != ready.folder.resolve():
        raise CheckpointError(f"the model to run in place of the weights of {folder} was made of {ready.folder}")
    return ready, ready.image_processor


Backend = str | ReadyModel | None  # name of an exported form or "torch", a loaded model, or None for what is there

__all__ = ["Backend", "HeldModel", "ReadyModel", "ready_for", "torch_threads"]
