"""Explanations from attention weights: raw attention, attention rollout and gradient rollout.

Shapes: B images, H heads, N tokens of which the first P are prefix tokens, h x w patches.
"""

import torch

from ..capture.attention_calls import AttentionCall
from ..capture.attention_maps import part_of, token_index
from ..capture.subject import NotApplicableError, Subject
from .request import Found, Request, in_range
from .score_gradients import score_gradients


def raw_attention(subject: Subject, request: Request) -> Found:
    """Attention weights of one token in one layer, of one head or the mean over heads."""
    part = "cross" if subject.architecture.kind == "detector" else "encoder"
    layers: list[torch.Tensor] = []

    def visit(call: AttentionCall) -> None:
        if part_of(subject, call) != part:
            return
        heads = slice(None)
        if request.head is not None:
            head = in_range("head", request.head, call.shape[1])
            heads = slice(head, head + 1)
        if part == "cross":  # the query is known only after the forward pass
            layers.append(call.weights(heads=heads).mean(dim=1))
        else:
            layers.append(token_rows(subject, request, call, heads))

    logits = subject.attend(visit)
    chosen = layers[in_range("layer", -1 if request.layer is None else request.layer, len(layers))]
    if part == "cross":
        queries = request.choice(subject, logits).queries
        assert queries is not None
        return Found(on_grid(subject, chosen[torch.arange(subject.batch), queries]), logits)
    return Found(on_grid(subject, chosen), logits)


def token_rows(subject: Subject, request: Request, call: AttentionCall, heads: slice) -> torch.Tensor:
    """Attention row (B, N) of the requested token, or the mean of the patches' rows, averaged over the given heads."""
    rows = viewing_tokens(subject, request, ("cls",) if "cls" in subject.architecture.reads else ("patches",))[0]
    if rows.stop - rows.start > 1 and heads == slice(None):
        return call.head_mean()[:, rows].mean(dim=1)  # `head_mean` needs less memory
    return call.weights(rows, heads).mean(dim=(1, 2))


def viewing_tokens(subject: Subject, request: Request, default: tuple[str, ...]) -> list[slice]:
    """Index ranges of the tokens whose attention is explained; each range has the same weight.

    Args:
        subject: Model and images.
        request: Request whose `token` is the name of a prefix token, "mean" for all patches, or the number of a patch,
            row by row.
        default: Names used if the request has no token: prefix tokens, or "patches" for all patches.

    Raises:
        ExplanationError: There is no such token.
    """
    prefix, token = subject.architecture.prefix, request.token
    patches = slice(len(prefix), subject.num_tokens)
    if isinstance(token, int):
        index = len(prefix) + in_range("token", token, patches.stop - patches.start)
        return [slice(index, index + 1)]
    groups = []
    for name in default if token is None else (token,):
        if name in ("patches", "mean"):
            groups.append(patches)
        else:
            index = token_index(subject, name, patches.stop)
            groups.append(slice(index, index + 1))
    return groups


def on_grid(subject: Subject, tokens: torch.Tensor) -> torch.Tensor:
    """Reshapes values of tokens (B, N) to the grid (B, h, w), without prefix tokens."""
    if subject.architecture.kind == "detector":
        return tokens.view(-1, *subject.architecture.feature_grid(subject.image_hw, tokens.shape[1]))
    return tokens[:, len(subject.architecture.prefix) :].reshape(-1, *subject.grid)


def rollout(subject: Subject, request: Request) -> Found:
    """Attention rollout (Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928): the product of (A + I) / 2."""
    refuse_detector(subject, "rollout")
    product: torch.Tensor | None = None

    def visit(call: AttentionCall) -> None:
        nonlocal product
        product = rolled(call.head_mean(), product)

    logits = subject.attend(visit)
    assert product is not None
    return Found(on_grid(subject, viewed(subject, request, product)), logits)


def gradient_rollout(subject: Subject, request: Request) -> Found:
    """Rollout of the attention that raises the class's score: the mean over heads of max(A * dS/dA, 0).

    Each row of this mean is scaled to sum to 1, so that a layer has the same weight as in plain rollout. A row without
    positive values is replaced by the identity, so that it passes on its own token only.
    """
    refuse_detector(subject, "gradient_rollout")
    product: torch.Tensor | None = None
    calls, gradients, logits = attention_gradients(subject, request)
    for call, gradient in zip(calls, gradients, strict=True):
        positive = (call.weights().detach() * gradient).clamp(min=0).mean(dim=1)  # (B, N, N)
        total = positive.sum(dim=-1, keepdim=True)
        own = torch.eye(positive.shape[-1], device=positive.device)
        product = rolled(torch.where(total > 0, positive / total.clamp(min=1e-30), own), product)
    assert product is not None
    return Found(on_grid(subject, viewed(subject, request, product)), logits)


def rolled(weights: torch.Tensor, product: torch.Tensor | None) -> torch.Tensor:
    """Rollout with one more layer: (A + I) with normalised rows, times the product so far; (B, N, N), rows sum to 1."""
    weights = weights + torch.eye(weights.shape[-1], device=weights.device)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    if product is None:
        return weights
    product = weights @ product
    return product / product.sum(dim=-1, keepdim=True)  # keeps rounding errors from adding up


def attention_gradients(
    subject: Subject, request: Request
) -> tuple[list[AttentionCall], list[torch.Tensor], torch.Tensor]:
    """Attention operations of one pass, gradients of the chosen score with respect to their weights, and the logits.

    Each gradient has the shape (B, H, Q, N) of its operation's weights.
    """
    calls: list[AttentionCall] = []
    logits = subject.attend(calls.append, differentiable=True)
    score = request.choice(subject, logits).scores(logits).sum()  # type: ignore[arg-type]
    weights = [call.computed for call in calls]
    gradients = score_gradients(score, weights)  # type: ignore[arg-type]
    return calls, [g.reshape(c.shape) for c, g in zip(calls, gradients, strict=True)], logits.detach()  # type: ignore[union-attr]


def viewed(subject: Subject, request: Request, product: torch.Tensor) -> torch.Tensor:
    """Rows of (B, N, N) for the requested token, or the mean of the rows that the classifier reads: (B, N)."""
    groups = viewing_tokens(subject, request, subject.architecture.reads)
    return torch.stack([product[:, rows].mean(dim=1) for rows in groups]).mean(dim=0)


def refuse_detector(subject: Subject, method: str) -> None:
    """Raises a `NotApplicableError` for a detector, since rollout is defined for a sequence of encoder layers only."""
    if subject.architecture.kind == "detector":
        raise NotApplicableError(f"{method} is not defined across encoder and decoder; use method='relevance'")


__all__ = [
    "attention_gradients",
    "gradient_rollout",
    "on_grid",
    "raw_attention",
    "rolled",
    "rollout",
    "token_rows",
    "viewed",
    "viewing_tokens",
]
