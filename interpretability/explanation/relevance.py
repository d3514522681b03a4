"""Generic attention relevance (Chefer et al. 2021, https://arxiv.org/abs/2103.15679).

Each attention layer propagates relevance by its weights times their gradient, positive parts only, averaged over heads:
cam = E_h[(dS/dA * A)+]. Equation numbers are those of the paper. Shapes: B images, N tokens, Q object queries.
"""

import torch

from ..capture.attention_maps import part_of
from ..capture.subject import Subject
from .attention_flow import attention_gradients, on_grid, viewed
from .request import Found, Request


def relevance(subject: Subject, request: Request) -> Found:
    """Relevance of each patch to the tokens that the classifier reads, or, in a detector, to one object query."""
    calls, gradients, logits = attention_gradients(subject, request)
    cams = [
        (part_of(subject, call), (call.weights().detach() * gradient).clamp(min=0).mean(dim=1))
        for call, gradient in zip(calls, gradients, strict=True)
    ]
    if subject.architecture.kind == "detector":
        queries = request.choice(subject, logits).queries
        assert queries is not None
        tokens = query_relevance(cams)[torch.arange(subject.batch), queries]
        return Found(on_grid(subject, tokens), logits)
    product = _identity(cams[0][1])
    for _, cam in cams:
        product = product + cam @ product  # eq. 6
    return Found(on_grid(subject, viewed(subject, request, product)), logits)


def query_relevance(cams: list[tuple[str, torch.Tensor]]) -> torch.Tensor:
    """Relevance (B, Q, N) of image tokens to object queries.

    Args:
        cams: Part and cam of each attention layer, in the order of the forward pass: "encoder" (B, N, N), "decoder"
            (B, Q, Q) or "cross" (B, Q, N).
    """
    shapes = dict(reversed([(part, cam.shape) for part, cam in cams]))
    image = torch.eye(shapes["cross"][2], device=cams[0][1].device)  # R_ii
    objects = torch.eye(shapes["cross"][1], device=image.device)  # R_qq
    reached = torch.zeros(shapes["cross"], device=image.device)  # R_qi
    for part, cam in cams:
        if part == "encoder":
            image = image + cam @ image  # eq. 6
        elif part == "decoder":
            reached = reached + cam @ reached  # eq. 7
            objects = objects + cam @ objects
        else:
            reached = reached + _normalised(objects).transpose(-1, -2) @ cam @ _normalised(image)  # eq. 10
    return reached


def _normalised(relevance: torch.Tensor) -> torch.Tensor:
    """Relevance with the rows of its part beyond the identity scaled to sum to 1 (eq. 8 and 9)."""
    own = torch.eye(relevance.shape[-1], device=relevance.device)
    added = relevance - own
    total = added.sum(dim=-1, keepdim=True)
    return own + torch.where(total > 0, added / total.clamp(min=1e-30), 0.0)


def _identity(like: torch.Tensor) -> torch.Tensor:
    return torch.eye(like.shape[-1], device=like.device).expand_as(like)


__all__ = ["query_relevance", "relevance"]
