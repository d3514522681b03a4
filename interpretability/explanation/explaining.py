"""One call for every explanation of every model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from ...data.argument_names import argument
from ..capture.model_state import undisturbed
from ..capture.subject import ExplanationError, Subject, make_subject
from .explanation import Explanation
from .methods import EXPLANATION_METHODS, ExplanationMethod
from .request import Found, Request
from .targets import Target, label_names

logger = logging.get_logger(__name__)

DEFAULT_METHODS = {"vit": "relevance", "detector": "relevance", "cnn": "grad_cam"}


def explain(
    model: nn.Module,
    pixel_values: torch.Tensor,
    method: str = "auto",
    *,
    target: Target = None,
    layer: int | None = None,
    head: int | None = None,
    token: int | str | None = None,
    query: int | Sequence[int] | None = None,
    pixel_mask: torch.Tensor | None = None,
    steps: int = 32,
    seed: int = 0,
    batch_size: int = 16,
) -> Explanation:
    """Where in each image lies what the model decided by.

    The model is run in evaluation mode and left as it was found: modes, attention implementation, gradients, device;
    also after an error.

    Args:
        model: A ViT, DeiT, DETR or CNN: of this package, transformers, timm or torchvision.
        pixel_values: (B, C, height, width), normalised as the model wants it; moved to the model's device and type.
        method: A name in `EXPLANATION_METHODS`, which says when to use each; "auto" is relevance for models with
            attention and Grad-CAM for others.
        target: The class to explain, by index or by name, for all images or one per image; the likeliest one if None.
        layer: For "attention" the layer (the last if None); for class activation maps the attention layer of a ViT or
            the resolution of a CNN, found automatically if None. Negative ones count from the end.
        head: For "attention"; the mean of all heads if None.
        token: For methods on attention, whose view it is: "cls", "distillation", "mean" of the patches, or a patch by
            its number, row by row. If None, for raw attention CLS, or the mean where the classifier does not read CLS;
            for the others what the classifier reads: CLS, both tokens of a distilled DeiT, or patches.
        query: Object query of a detector, for all images or one per image; if None the one that is surest of the
            class, or of any.
        pixel_mask: (B, height, width) of padded images, for models that take it.
        steps: Of integrated gradients.
        seed: Of the random map.
        batch_size: Images at once in occlusion.

    Returns:
        Maps in input pixels, the grid that they come from, and what was explained.

    Raises:
        ExplanationError: A `ValueError`: no such method, class, layer, head, token or query; images that do not fit
            the model; attention asked of a model without; an option that the method does not take.
    """
    subject = make_subject(model, pixel_values, pixel_mask)
    chosen = _method(method, subject)
    _check_options(chosen, {"layer": layer, "head": head, "token": token})
    request = Request(target, query, layer, head, token, steps, seed, batch_size)
    with undisturbed(subject.model):
        found = chosen.compute(subject, request)
    explanation = _explanation(subject, request, chosen, found)
    for index, empty in enumerate((explanation.maps <= 0).flatten(1).all(dim=1).tolist()):
        if empty:
            logger.warning("image %d: %s; nothing in it speaks for this class", index, explanation.title(index))
    return explanation


def _method(name: str, subject: Subject) -> ExplanationMethod:
    name = DEFAULT_METHODS[subject.architecture.kind] if name == "auto" else name.replace("-", "_")
    if name not in EXPLANATION_METHODS:
        raise ExplanationError(
            f"{argument('method')} must be one of {', '.join(EXPLANATION_METHODS)}, or auto, got {name!r}"
        )
    return EXPLANATION_METHODS[name]


def _check_options(method: ExplanationMethod, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None and name not in method.options:
            takers = ", ".join(other.name for other in EXPLANATION_METHODS.values() if name in other.options)
            raise ExplanationError(
                f"method {method.name!r} takes no {argument(name)} (got {value!r}); these do: {takers}"
            )


def _explanation(subject: Subject, request: Request, method: ExplanationMethod, found: Found) -> Explanation:
    target = labels = probabilities = queries = None
    if found.logits is not None or request.target is not None or request.query is not None:
        choice = request.choice(subject, found.logits)
        target = tuple(choice.labels.tolist())
        names = label_names(subject.model)
        labels = tuple(names.get(index, str(index)) for index in target)
        probabilities = tuple(choice.probabilities.tolist())
        queries = None if choice.queries is None else tuple(choice.queries.tolist())
    grid = found.grid.detach().float().cpu()
    maps = nn.functional.interpolate(grid[:, None], subject.image_hw, mode="bilinear", align_corners=False)[:, 0]
    return Explanation(
        maps=maps if found.maps is None else found.maps.detach().float().cpu(),
        grid=grid,
        method=method.name,
        pixel_values=subject.pixel_values.float().cpu(),
        target=target,
        labels=labels,
        probabilities=probabilities,
        queries=queries,
        layer=request.layer,
        head=request.head,
        token=request.token,
    )


__all__ = ["DEFAULT_METHODS", "explain"]
