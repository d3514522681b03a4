"""Attention weights of any vision transformer, as they are.

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
    """The attention weights of each layer, first to last.

    The model runs once, with its own attention; only queries and keys are kept, and the weights of a layer are
    computed when its turn comes: one layer is held at a time. (Where the model is set to "eager" and computes the
    weights itself, those are kept.)

    Args:
        model: A vision transformer of this package, transformers, timm or torchvision, or a DETR.
        pixel_values: (B, C, height, width), normalised.
        part: "encoder"; of a detector also "decoder" (between object queries) and "cross" (from them to the image).
        pixel_mask: (B, height, width) of a detector's padded images.

    Yields:
        (B, H, N, N), of a detector (B, H, Q, Q) or (B, H, Q, N), fp32; rows sum to 1.

    Raises:
        ExplanationError: The model has no such attention, or the images do not fit it.
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
    """What one token attends to, in each layer; the other rows are never computed.

    Args:
        model: As for `attention_maps`.
        pixel_values: (B, C, height, width), normalised.
        token: Index among the tokens (prefix tokens first; negative ones count from the end), "cls", "distillation",
            or with another `part` the index of an object query.
        part: As for `attention_maps`.
        pixel_mask: As for `attention_maps`.

    Returns:
        One (B, H, N) per layer, fp32, whose last dimension sums to 1.

    Raises:
        ExplanationError: As for `attention_maps`, or there is no such token.
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
    """Every attention of one forward pass, without gradients."""
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        call.tokens = None  # what is not needed is freed
        calls.append(call)

    with undisturbed(subject.model):
        subject.attend(keep)
    return calls


def part_of(subject: Subject, call: AttentionCall) -> str:
    """Whether an attention is of the "encoder", of the "decoder" itself, or "cross" from it to the image."""
    architecture = subject.architecture
    if architecture.kind == "vit" or call.index < architecture.backbone_layers + architecture.encoder_layers:
        return "encoder"
    return "cross" if (call.index - architecture.backbone_layers - architecture.encoder_layers) % 2 else "decoder"


def token_index(subject: Subject, token: int | str, count: int) -> int:
    """The row of a token among `count`."""
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
