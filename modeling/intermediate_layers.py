"""Outputs of single layers of a ViT, under the name and with the arguments that timm's users know.

Shapes: B images, P prefix tokens (CLS, distillation token, registers), N patches, D = hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch

Maps = list[torch.Tensor] | list[tuple[torch.Tensor, torch.Tensor]]


class IntermediateLayers:
    """Mixin of ViT models, whose encoder (`base_model`) has `run_layers`."""

    config: Any
    base_model: Any

    def forward_intermediates(
        self,
        pixel_values: torch.Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Maps | tuple[torch.Tensor, Maps]:
        """Computes the outputs of several layers, as the method of this name in timm.

        Args:
            pixel_values: Normalised images (B, C, height, width); the sides are any multiples of the patch's.
            indices: Numbers of layers from 0, negative ones from the end; an integer n means the last n; None means
                all. They are returned in the order of the layers, each once.
            return_prefix_tokens: Whether to return (patches, prefix tokens (B, P, D)) for each layer, if P is not 0.
            norm: Whether to apply the last LayerNorm to the outputs; one that belongs after pooling is not applied.
            stop_early: Whether no layer after the last one asked for is computed.
            output_fmt: Shape of the patches: "NCHW", (B, D, rows, columns), or "NLC", (B, N, D).
            intermediates_only: Whether to return the outputs of the layers without the final tokens.

        Returns:
            The final tokens (B, P + N, D) after the last LayerNorm, and the list of outputs; or the list alone.

        Raises:
            ValueError: A layer does not exist, or `output_fmt` is another one.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"`output_fmt` must be 'NCHW' or 'NLC', got {output_fmt!r}")
        encoder, prefix = self.base_model, self.config.num_prefix_tokens
        asked = _layer_numbers(indices, len(encoder.layers))
        depth = asked[-1] if stop_early or intermediates_only else None
        final, states, _ = encoder.run_layers(pixel_values, keep=asked, depth=depth)
        grid = encoder.embeddings.check_pixels(pixel_values)
        maps: list[Any] = []
        for state in states.values():
            state = encoder.normed(state) if norm else state
            patches = as_map(state[:, prefix:], grid) if output_fmt == "NCHW" else state[:, prefix:]
            maps.append((patches, state[:, :prefix]) if return_prefix_tokens and prefix else patches)
        return maps if intermediates_only else (encoder.normed(final), maps)


def as_map(patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Arranges patches (B, rows * columns, D) as a feature map (B, D, rows, columns)."""
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, *grid)


def _layer_numbers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Numbers from 1 of the layers that `indices` of `forward_intermediates` names, ascending."""
    if indices is None:
        return list(range(1, depth + 1))
    if isinstance(indices, int):
        if isinstance(indices, bool) or not 1 <= indices <= depth:
            raise ValueError(f"`indices` must be at most the {depth} layers, and at least 1, got {indices}")
        return list(range(depth - indices + 1, depth + 1))
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not -depth <= index < depth:
            raise ValueError(f"`indices` must be numbers of layers from {-depth} to {depth - 1}, got {index!r}")
    if not indices:
        raise ValueError(f"`indices` must name at least one layer, got {indices!r}")
    return sorted({index % depth + 1 for index in indices})


__all__ = ["IntermediateLayers", "Maps", "as_map"]
