"""Entry point of all explanations: `explain` runs any method on any supported model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from ...data.argument_names import argument
from ..capture.model_state import undisturbed
from ..capture.subject import ExplanationError, Subject, make_subject
from .explanation import Explanation, Prediction
from .methods import EXPLANATION_METHODS, ExplanationMethod
from .request import Found, OnPass, Request
from .targets import Target, choose, label_names

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
    on_pass: OnPass | None = None,
) -> Explanation:
    """Maps of how much each part of an image contributed to the model's decision.

    The model runs in evaluation mode. Its modes, attention implementation, gradients and device are left unchanged,
    also after an error.

    Args:
        model: ViT, DeiT, DETR or CNN of this package, transformers, timm or torchvision.
        pixel_values: Images (B, C, height, width), normalised as the model expects them; they are moved to the model's
            device and data type.
        method: Name in `EXPLANATION_METHODS`, which says when to use each method; "auto" means relevance for models
            with attention and Grad-CAM for others.
        target: Class to explain, by index or name, for all images or one per image; None means the most likely one.
        layer: For "attention", the layer (None: the last); for class activation maps, the attention layer of a ViT or
            the resolution of a CNN (None: chosen automatically). Negative values count from the end.
        head: Attention head, for "attention"; None means the mean over heads.
        token: Token whose attention is explained, for methods based on attention: "cls", "distillation", "mean" of the
            patches, or the number of a patch, row by row. None means, for raw attention, CLS, or the mean of the
            patches if the classifier does not read CLS; for other methods, the tokens that the classifier reads: CLS,
            both tokens of a distilled DeiT, or the patches.
        query: Object query of a detector, for all images or one per image; None means the query with the highest
            probability of the class, or of any class if there is no `target`.
        pixel_mask: Mask (B, height, width) of padded images, 1 on pixels and 0 on padding, for models that take it.
        steps: Number of steps of integrated gradients; 32 by default.
        seed: Random seed of the random map; 0 by default.
        batch_size: Most images per forward pass of occlusion; 16 by default.
        on_pass: Function called after each pass of integrated gradients and occlusion, which make many, with the number
            of passes that are done and of all; other methods do not call it.

    Returns:
        Maps in input pixels, the grid that they come from, and the class or query that they explain.

    Raises:
        ExplanationError: A `ValueError`: there is no such method, class, layer, head, token or query; the images do not
            fit the model; the method needs attention and the model has none; or the method does not take an option.
    """
    subject = make_subject(model, pixel_values, pixel_mask)
    chosen = _method(method, subject)
    _check_options(chosen, {"layer": layer, "head": head, "token": token})
    request = Request(target, query, layer, head, token, steps, seed, batch_size, on_pass)
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
    target = labels = probabilities = queries = predictions = None
    if found.logits is not None or request.target is not None or request.query is not None:
        choice = request.choice(subject, found.logits)
        target = tuple(choice.labels.tolist())
        names = label_names(subject.model)
        labels = tuple(names.get(index, str(index)) for index in target)
        probabilities = tuple(choice.probabilities.tolist())
        queries = None if choice.queries is None else tuple(choice.queries.tolist())
        likeliest = choose(subject.model, found.logits, None, queries)
        predictions = tuple(
            Prediction(index, names.get(index, str(index)), probability)
            for index, probability in zip(likeliest.labels.tolist(), likeliest.probabilities.tolist(), strict=True)
        )
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
        predictions=predictions,
    )


__all__ = ["DEFAULT_METHODS", "explain"]
