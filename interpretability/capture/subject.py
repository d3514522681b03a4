"""Model and images of an explanation, checked and prepared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .architecture import Architecture, device_and_dtype, read_architecture, takes_argument, unwrap
from .attention_calls import AttentionCall
from .forward_capture import AttentionCapture


class ExplanationError(ValueError):
    """The request does not fit the model or the images; the message says what would."""


class NotApplicableError(ExplanationError):
    """The method needs something that the model does not have: attention, or classes."""


@dataclass(frozen=True)
class Subject:
    """Unwrapped model, and images on its device and in its data type.

    Args:
        model: Model to explain; it runs in its current mode, so that callers use `undisturbed` around it.
        architecture: Structure of the model.
        pixel_values: Normalised images (B, C, height, width).
        arguments: Further arguments of the model's `forward`.
    """

    model: nn.Module
    architecture: Architecture
    pixel_values: torch.Tensor
    arguments: dict[str, Any]

    @property
    def batch(self) -> int:
        """Number of images B."""
        return self.pixel_values.shape[0]

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        return self.pixel_values.shape[2], self.pixel_values.shape[3]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches; only for "vit"."""
        return self.architecture.grid(self.image_hw)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of an image, including prefix tokens; only for "vit"."""
        rows, columns = self.grid
        return len(self.architecture.prefix) + rows * columns

    def forward(self, pixel_values: torch.Tensor | None = None, images: torch.Tensor | None = None) -> Any:
        """Output of the model.

        Args:
            pixel_values: Modified images of the same size; None uses the subject's own images.
            images: Index of the original image of each modified image, which selects its `pixel_mask`; None if all
                images are given in order.
        """
        arguments = dict(self.arguments)
        if images is not None and "pixel_mask" in arguments:
            arguments["pixel_mask"] = arguments["pixel_mask"][images]
        return self.model(self.pixel_values if pixel_values is None else pixel_values, **arguments)

    def logits(self, output: Any) -> torch.Tensor | None:
        """Logits in a model's output: (B, L) for a classifier, (B, Q, L) for a detector, None without a head."""
        if isinstance(output, torch.Tensor):
            headless = getattr(self.model, "num_classes", None) == 0  # timm models without a head return features
            return None if headless or output.ndim != 2 else output
        logits = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
        return logits if isinstance(logits, torch.Tensor) else None

    def attend(self, visit: Callable[[AttentionCall], None], differentiable: bool = False) -> torch.Tensor | None:
        """Runs the model, passes each attention over the tokens of an image to `visit`, and returns the logits.

        Args:
            visit: Function called with each attention operation.
            differentiable: Whether to compute the weights as part of the autograd graph; False by default.

        Raises:
            NotApplicableError: The model has no such attention.
        """
        seen, pixels = 0, self.pixel_values

        def filtered(call: AttentionCall) -> None:
            nonlocal seen
            if self.is_over_image(call):
                seen += 1
                visit(call)

        if differentiable:
            pixels = pixels.detach().requires_grad_()
        with torch.set_grad_enabled(differentiable), AttentionCapture(filtered, self.batch, differentiable) as capture:
            output = self.forward(pixels)
        if not seen:
            raise NotApplicableError(self._no_attention(capture.count))
        return self.logits(output)

    def is_over_image(self, call: AttentionCall) -> bool:
        """Whether an attention belongs to the encoder or decoder, and not, for example, to a pooling head."""
        batch, _, queries, keys = call.shape
        if self.architecture.kind == "detector":
            return batch == self.batch and call.index >= self.architecture.backbone_layers
        return self.architecture.kind == "vit" and batch == self.batch and queries == keys == self.num_tokens

    def _no_attention(self, count: int) -> str:
        name = type(self.model).__name__
        maps = "" if self.architecture.kind == "vit" else "grad_cam, hires_cam, layer_cam, "
        others = f"methods for it: {maps}integrated_gradients, occlusion, random"
        if not count:
            return f"{name} has no attention, which this method explains; {others}"
        return (
            f"{name} has no attention between all tokens of an image and nothing else: it may have windows, a pooling, "
            f"sampled points or tokens for boxes; {others}"
        )


def make_subject(model: nn.Module, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> Subject:
    """Checks that images fit a model, and moves them to its device and data type.

    Args:
        model: Any image model, which may be compiled or wrapped for parallel training.
        pixel_values: Images (B, C, height, width), normalised as the model expects them.
        pixel_mask: Mask (B, height, width), 1 on pixels and 0 on padding, for models that take one; None by default.

    Raises:
        ExplanationError: The images have a wrong shape, type or size, or are not finite.
        TypeError: `model` is not a torch module, or `pixel_values` is not a tensor.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch module, got {type(model).__name__}")
    if not isinstance(pixel_values, torch.Tensor):
        raise TypeError(f"`pixel_values` must be a tensor, got {type(pixel_values).__name__}")
    shape = tuple(pixel_values.shape)
    if pixel_values.ndim != 4 or 0 in shape:
        raise ExplanationError(f"`pixel_values` must be (batch, channels, height, width), got {shape}")
    if not pixel_values.is_floating_point():
        raise ExplanationError(f"`pixel_values` must be normalised floating-point pixels, got {pixel_values.dtype}")
    if not bool(pixel_values.isfinite().all()):
        raise ExplanationError("`pixel_values` holds values that are not finite")
    model = unwrap(model)
    architecture = read_architecture(model)
    device, dtype = device_and_dtype(model)
    arguments: dict[str, Any] = {}
    if pixel_mask is not None:
        if not takes_argument(model, "pixel_mask"):
            raise ExplanationError(f"{type(model).__name__} takes no `pixel_mask`")
        arguments["pixel_mask"] = pixel_mask.to(device)
    if takes_argument(model, "interpolate_pos_encoding"):
        # resampling lets any size work; at the model's own size it is off, as transformers cannot resample from a
        # rectangular grid
        arguments["interpolate_pos_encoding"] = (shape[2], shape[3]) != architecture.own_hw
    with torch.inference_mode(mode=False):
        pixels = pixel_values.detach().to(device, dtype).clone()
    subject = Subject(model, architecture, pixels, arguments)
    if architecture.kind == "vit":
        try:
            _ = subject.grid
        except ValueError as error:
            raise ExplanationError(str(error)) from None
    return subject


__all__ = ["ExplanationError", "NotApplicableError", "Subject", "make_subject"]
