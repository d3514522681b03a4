"""Explanations of one image by several methods, for a report."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import nn

from ...data.image_processing import pixel_format
from ..capture.model_state import undisturbed
from ..capture.subject import NotApplicableError, make_subject
from .explaining import explain
from .methods import EXPLANATION_METHODS
from .overlays import as_picture
from .report import ExplainedImage
from .targets import label_names


def explain_image(
    model: nn.Module,
    processor: Any,
    image: Image.Image,
    methods: Sequence[str],
    *,
    name: str = "image",
    options: dict[str, Any] | None = None,
    on_method: Callable[[], None] = lambda: None,
    on_pass: Callable[[str, int, int], None] | None = None,
) -> ExplainedImage:
    """Explains an image by several methods.

    Args:
        model: Model that `explain` accepts.
        processor: Image processor of the model.
        image: RGB image.
        methods: Names of methods; or only "all", which runs every method that applies to the model and lists the others
            as skipped.
        name: Name of the image in the report.
        options: Further arguments of `explain`; with "all", each method gets only the options that it takes.
        on_method: Function called after each method.
        on_pass: Function called after each pass of a method that makes many, with the method's name and the numbers of
            passes that are done and of all.

    Raises:
        ExplanationError: A method, class or option does not fit the model; see `explain`.
    """
    inputs = processor(image, return_tensors="pt")
    pixels, every = inputs["pixel_values"], list(methods) == ["all"]
    given = {key: value for key, value in (options or {}).items() if value is not None}
    result = ExplainedImage(name, seen_picture(pixels[0], processor), predictions(model, pixels))
    for method in EXPLANATION_METHODS if every else methods:
        begun = time.perf_counter()
        listener = None if on_pass is None else partial(on_pass, method)
        taken = _taken(method, given) if every else given
        try:
            explanation = explain(model, pixels, method, on_pass=listener, **taken)
        except NotApplicableError as error:
            if not every:
                raise
            result.skipped[method] = str(error)
        else:
            result.add(explanation, time.perf_counter() - begun)
        on_method()
    return result


def _taken(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that only other methods take."""
    narrow = {"layer", "head", "token"} - EXPLANATION_METHODS[method].options
    return {key: value for key, value in options.items() if key not in narrow}


def seen_picture(pixels: torch.Tensor, processor: Any) -> Image.Image:
    """Image of normalised pixels (3, height, width), with the processor's normalisation undone."""
    stated = pixel_format(processor)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (stated.mean, stated.std))
    return as_picture((pixels.float().cpu() * std + mean).clamp(0, 1))


def predictions(model: nn.Module, pixel_values: torch.Tensor, top: int = 5) -> list[tuple[str, float]]:
    """Most likely labels of one image and their probabilities; empty for a detector or a model without a head."""
    subject = make_subject(model, pixel_values)
    with undisturbed(subject.model), torch.no_grad():
        logits = subject.logits(subject.forward())
    if logits is None or logits.ndim != 2:
        return []
    several = getattr(getattr(subject.model, "config", None), "problem_type", None) == "multi_label_classification"
    scores = (logits.sigmoid() if several else logits.softmax(dim=-1))[0].float()
    names, best = label_names(subject.model), scores.topk(min(top, len(scores)))
    return [
        (names.get(index, str(index)), score)
        for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


__all__ = ["explain_image", "predictions", "seen_picture"]
