"""Teacher whose features a backbone learns: any vision model of this package, of transformers or of timm.

Shapes: B images, C channels, T = width of the teacher's features.
"""

from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from ....configuration.configuration_vit import HubViTConfig
from ....data.image_processing import PixelFormat, pixel_format
from ....hub.any_model import load_any_model
from ....hub.checkpoints import CheckpointError
from ...recipe.recipe import RecipeError
from ...recipe.sections import DistillationSettings
from ..teaching import PixelAdapter, teaches_in_bf16

# Pixels per side of a patch where a model does not state it, or merges its patches (as Swin does).
_STRIDES = (8, 14, 16, 32)
_MOST_PREFIX_TOKENS = 16


class FeatureTeacher:
    """Teacher that returns features of whole images and of their patches; neither trained nor saved with the student.

    Args:
        model: Model of transformers or timm, put into evaluation mode.
        given: Pixel format of the student, in which pixels arrive.
        wanted: Pixel format that the teacher expects.
        grid: Rows and columns of the student's patches, to which the teacher's are resized.
        bf16: Whether the teacher computes in bf16.
        name: Name of the teacher in messages and cards.

    Raises:
        RecipeError: The model has no features of patches.
    """

    def __init__(
        self,
        model: nn.Module,
        given: PixelFormat,
        wanted: PixelFormat,
        grid: tuple[int, int],
        bf16: bool = False,
        name: str = "a module",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.adapt, self.grid, self.bf16, self.name = PixelAdapter(given, wanted), grid, bf16, name
        device = next(model.parameters()).device
        answers = self(torch.zeros(1, 3, *given.image_hw, device=device))  # says early what a teacher lacks
        self.width = answers["patch_targets"].shape[-1]

    @classmethod
    def load(cls, settings: DistillationSettings, given: PixelFormat, grid: tuple[int, int]) -> Self:
        """Loads the teacher of a recipe.

        Raises:
            CheckpointError: The teacher cannot be loaded.
            RecipeError: The model has no features of patches.
        """
        assert settings.teacher is not None
        try:
            model, processor = load_any_model(settings.teacher, settings.revision)
        except CheckpointError as error:
            raise CheckpointError(f"distillation.teacher: {error}") from error
        return cls(model.float(), given, pixel_format(processor), grid, teaches_in_bf16(settings), settings.teacher)

    def to(self, device: torch.device) -> Self:
        """Moves the teacher to a device."""
        self.model.to(device)
        return self

    def __call__(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Computes the features to learn.

        Args:
            pixel_values: Pixels (B, C, height, width), normalised for the student.

        Returns:
            `image_targets` (B, T), the CLS token or the mean of the patches, and `patch_targets` (B, rows * columns, T)
            on the student's grid, fp32.
        """
        with torch.no_grad(), torch.autocast(pixel_values.device.type, torch.bfloat16, enabled=self.bf16):
            image, patches = self._features(self.adapt(pixel_values))
        patches = patches.float()
        if tuple(patches.shape[2:]) != self.grid:
            patches = nn.functional.interpolate(patches, self.grid, mode="bilinear", align_corners=False)
        return {"image_targets": image.float(), "patch_targets": patches.flatten(2).transpose(1, 2)}

    def _features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of images (B, T), and of their patches (B, T, rows, columns)."""
        states = self._states(pixels)
        if states.ndim == 4:
            return states.mean(dim=(2, 3)), states
        height, width = pixels.shape[2:]
        if states.ndim == 3 and (found := self._grid(states.shape[1], height, width)) is not None:
            prefix, rows, columns = found
            patches = states[:, prefix:].transpose(1, 2).reshape(len(states), -1, rows, columns)
            return (states[:, 0] if prefix else patches.mean(dim=(2, 3))), patches
        raise RecipeError(
            f"distillation.teacher: must have features of patches, got {self.name}, whose last features have shape "
            f"{tuple(states.shape)} for an image of {height} x {width} pixels"
        )

    def _states(self, pixels: torch.Tensor) -> torch.Tensor:
        """Last features before pooling: tokens (B, N, T), or a map (B, T, rows, columns)."""
        inner: Any = getattr(self.model, "timm_model", self.model)
        if hasattr(inner, "forward_features"):
            states = inner.forward_features(pixels)
            if states.ndim == 4 and getattr(inner, "output_fmt", "NCHW") == "NHWC":
                states = states.permute(0, 3, 1, 2)
        elif isinstance(self.model, PreTrainedModel):
            states = getattr(self.model.base_model(pixel_values=pixels), "last_hidden_state", None)
        else:
            states = self.model(pixels)
        if not isinstance(states, torch.Tensor):
            raise RecipeError(
                f"distillation.teacher: must have features of patches, got {self.name}, a {type(self.model).__name__}"
            )
        return states

    def _grid(self, tokens: int, height: int, width: int) -> tuple[int, int, int] | None:
        """Number of prefix tokens, rows and columns of a sequence of tokens; None if it is no grid of patches."""
        config: Any = getattr(self.model, "config", None)
        inner = getattr(self.model, "timm_model", self.model)
        if isinstance(config, HubViTConfig):
            strides = [config.patch_hw]
        else:
            embed = getattr(inner, "patch_embed", None)
            stated = getattr(embed, "patch_size", None) or getattr(config, "patch_size", None)
            pair = (stated, stated) if isinstance(stated, int) else tuple(stated) if stated else None
            strides = [*([pair] if pair else []), *((stride, stride) for stride in _STRIDES)]
        for stride_height, stride_width in strides:
            rows, columns = height // stride_height, width // stride_width
            prefix = tokens - rows * columns
            if rows * columns > 1 and 0 <= prefix <= _MOST_PREFIX_TOKENS:
                return prefix, rows, columns
        return None


__all__ = ["FeatureTeacher"]
