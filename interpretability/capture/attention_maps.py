"""Raw attention weights of any vision transformer or DETR.

Shapes: B images, H heads, N tokens (prefix tokens, then patches row by row), Q object queries.
"""

from collections.abc import Iterator

import torch
from torch import nn

from ...data.argument_names import argument
from .attention_calls import AttentionCall
from .model_state import undisturbed
from .subject import ExplanationError, Subject, make_subject

PARTS = ("encoder", "decoder", "cross")


def attention_maps(
    model: nn.Module, pixel_values: torch.Tensor, *, part: str = "encoder", pixel_mask: torch.Tensor | None = None
) -> Iterator[torch.Tensor]:
    """Yields the attention weights of each layer, first to last.

    The model runs once, with its own attention implementation. Only queries and keys are kept, and the weights of a
    layer are computed when they are requested, so that one layer is held at a time. (With the "eager" implementation,
    where the model computes the weights itself, these weights are kept.)

    Args:
        model: Vision transformer of this package, transformers, timm or torchvision, or a DETR.
        pixel_values: Normalised images (B, C, height, width).
        part: "encoder" (the default); for a detector also "decoder" (between object queries) or "cross" (from object
            queries to the image).
        pixel_mask: Mask (B, height, width) of padded images for a detector, 1 on pixels and 0 on padding.

    Yields:
        Attention weights of a layer, fp32, rows sum to 1: (B, H, N, N) for "encoder", (B, H, Q, Q) for "decoder",
        (B, H, Q, N) for "cross".

    Raises:
        ExplanationError: The model has no such attention, or the images do not fit the model.
    """
    subject = make_subject(model, pixel_values, pixel_mask)
    calls = [call for call in captured(subject) if part_of(subject, call) == _checked(part)]
    if not calls:
        raise ExplanationError(f"{type(subject.model).__name__} has no attention of the part {part!r}")
    return _weights(calls)


def _weights(calls: list[AttentionCall]) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        while calls:
            yield calls.pop(0).weights()


def attention_rows(
    model: nn.Module,
    pixel_values: torch.Tensor,
    token: int | str = 0,
    *,
    part: str = "encoder",
    pixel_mask: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Attention weights of one token in each layer; the rows of other tokens are never computed.

    Args:
        model: Vision transformer of this package, transformers, timm or torchvision, or a DETR.
        pixel_values: Normalised images (B, C, height, width).
        token: Index of the token (prefix tokens first; negative values count from the end), "cls" or "distillation";
            for "decoder" and "cross" the index of an object query.
        part: "encoder" (the default); for a detector also "decoder" (between object queries) or "cross" (from object
            queries to the image).
        pixel_mask: Mask (B, height, width) of padded images for a detector, 1 on pixels and 0 on padding.

    Returns:
        Attention weights (B, H, N) per layer, fp32; the last dimension sums to 1.

    Raises:
        ExplanationError: The model has no such attention or token, or the images do not fit the model.
    """
    subject = make_subject(model, pixel_values, pixel_mask)
    found: list[torch.Tensor] = []

    def visit(call: AttentionCall) -> None:
        if part_of(subject, call) == _checked(part):
            row = token_index(subject, token, call.shape[2])
            found.append(call.weights(slice(row, row + 1))[:, :, 0])

    with undisturbed(subject.model):
        subject.attend(visit)
    if not found:
        raise ExplanationError(f"{type(subject.model).__name__} has no attention of the part {part!r}")
    return found


def captured(subject: Subject) -> list[AttentionCall]:
    """Attention operations of one forward pass, without gradients."""
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        call.tokens = None  # frees the memory of unused tokens
        calls.append(call)

    with undisturbed(subject.model):
        subject.attend(keep)
    return calls


def part_of(subject: Subject, call: AttentionCall) -> str:
    """Part of the model that an attention belongs to: "encoder", "decoder" (self-attention) or "cross"."""
    architecture = subject.architecture
    if architecture.kind == "vit" or call.index < architecture.backbone_layers + architecture.encoder_layers:
        return "encoder"
    return "cross" if (call.index - architecture.backbone_layers - architecture.encoder_layers) % 2 else "decoder"


def token_index(subject: Subject, token: int | str, count: int) -> int:
    """Row of a token, given by name or index, among `count` tokens.

    Raises:
        ExplanationError: There is no such token.
    """
    if isinstance(token, str):
        prefix = subject.architecture.prefix
        if token not in prefix:
            raise ExplanationError(
                f"the model has no {token!r} token; before its patches are {', '.join(prefix) or 'none'}"
            )
        return prefix.index(token)
    if not -count <= token < count:
        raise ExplanationError(f"{argument('token')} must lie in {-count} to {count - 1}, got {token}")
    return token % count


def _checked(part: str) -> str:
    if part not in PARTS:
        raise ExplanationError(f"`part` must be one of {', '.join(PARTS)}, got {part!r}")
    return part


__all__ = ["attention_maps", "attention_rows", "captured", "part_of", "token_index"]
