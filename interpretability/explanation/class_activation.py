"""Class activation maps: features weighted by the gradient of the class's score.

Shapes: B images, C channels, h x w positions.
"""

from collections.abc import Callable

import torch

from ...data.argument_names import argument
from ..capture.attention_calls import AttentionCall
from ..capture.feature_capture import FeatureCapture
from ..capture.forward_capture import AttentionCapture
from ..capture.subject import ExplanationError, NotApplicableError, Subject
from .request import Found, Request, in_range
from .score_gradients import score_gradients

Weighting = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def grad_cam(subject: Subject, request: Request) -> Found:
    """Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391): channels weighted by the mean gradient."""
    return _class_activation(subject, request, grad_cam_map)


def hires_cam(subject: Subject, request: Request) -> Found:
    """HiResCAM (Draelos & Carin 2020, https://arxiv.org/abs/2011.08891): features times gradients, elementwise."""
    return _class_activation(subject, request, hires_cam_map)


def layer_cam(subject: Subject, request: Request) -> Found:
    """LayerCAM (Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943): features times positive gradients."""
    return _class_activation(subject, request, layer_cam_map)


def grad_cam_map(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """relu(sum_c mean_hw(g_c) f_c): features f and gradient g, (B, C, h, w) each, to a map (B, h, w)."""
    return (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0)


def hires_cam_map(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """relu(sum_c g_c * f_c): features f and gradient g, (B, C, h, w) each, to a map (B, h, w)."""
    return (gradient * features).sum(dim=1).clamp(min=0)


def layer_cam_map(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """relu(sum_c relu(g_c) * f_c): features f and gradient g, (B, C, h, w) each, to a map (B, h, w)."""
    return (gradient.clamp(min=0) * features).sum(dim=1).clamp(min=0)


def _class_activation(subject: Subject, request: Request, weighting: Weighting) -> Found:
    if request.head is not None:
        raise ExplanationError(f"class activation maps have no heads; {argument('head')} is for method='attention'")
    features, gradient, logits = (_of_tokens if subject.architecture.kind == "vit" else _of_maps)(subject, request)
    return Found(weighting(features.float(), gradient.float()), logits)


def _of_maps(subject: Subject, request: Request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Last features of a CNN at one resolution, their gradient, and the logits; `layer` selects the resolution."""
    pixels = subject.pixel_values.detach().requires_grad_()
    with torch.enable_grad(), FeatureCapture(subject.batch) as capture:
        logits = subject.logits(subject.forward(pixels))
    if not capture.maps:
        raise NotApplicableError(f"{type(subject.model).__name__} makes no map of features larger than one position")
    maps = list(capture.maps.values())
    features = maps[in_range("layer", -1 if request.layer is None else request.layer, len(maps))]
    (gradient,) = _gradients(subject, request, logits, [features])
    return features.detach(), gradient, logits


def _of_tokens(subject: Subject, request: Request) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Features of a ViT's patches and their gradient, as maps, and the logits.

    With `layer`, the features are the normalised tokens from which the values of that attention layer are projected.
    Without it, they are the last tokens if the score depends on their patches (as with mean pooling), and otherwise the
    tokens before the last attention.
    """
    states: list[torch.Tensor] = []

    def visit(call: AttentionCall) -> None:
        if call.tokens is not None and subject.is_over_image(call):
            states.append(call.tokens)

    pixels = subject.pixel_values.detach().requires_grad_()
    with (
        torch.enable_grad(),
        FeatureCapture(subject.batch, subject.num_tokens) as last,
        AttentionCapture(visit, subject.batch),
    ):
        logits = subject.logits(subject.forward(pixels))
    if not states:
        raise NotApplicableError(f"{type(subject.model).__name__} has no attention over the patches of an image")
    if request.layer is not None:
        candidates = [states[in_range("layer", request.layer, len(states))]]
    else:
        candidates = [state for state in (last.tokens, states[-1]) if state is not None]
    gradients = _gradients(subject, request, logits, candidates)
    prefix = len(subject.architecture.prefix)
    for state, gradient in zip(candidates, gradients, strict=True):
        features, slope = (_as_map(subject, tensor, prefix) for tensor in (state.detach(), gradient))
        if bool(slope.any()):
            break
    return features, slope, logits


def _as_map(subject: Subject, tokens: torch.Tensor, prefix: int) -> torch.Tensor:
    """Reshapes tokens (B, N, D) to a feature map (B, D, h, w), without prefix tokens."""
    return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, *subject.grid)


def _gradients(
    subject: Subject, request: Request, logits: torch.Tensor | None, states: list[torch.Tensor]
) -> list[torch.Tensor]:
    score = request.choice(subject, logits).scores(logits).sum()  # type: ignore[arg-type]
    return score_gradients(score, states)


__all__ = ["grad_cam", "grad_cam_map", "hires_cam", "hires_cam_map", "layer_cam", "layer_cam_map"]
