"""Predictions of a model in memory: the function behind `model.predict`."""

from pathlib import Path
from typing import Any

from torch import nn

from ..data.argument_names import argument
from ..data.pixels.named_images import opened_images
from ..hub.ready_model import HeldModel
from .tasks.registry import task_of


def predict_images(
    model: Any,
    processor: Any,
    images: Any,
    *,
    top: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
) -> list[Any]:
    """Predicts the labels of images, or the boxes that a detector finds, as `pipeline` does.

    Args:
        model: Classifier or detector. It computes in evaluation mode, and its modes are restored.
        processor: Its image processor.
        images: Images as `opened_images` takes them.
        top: Number of labels per image for a classifier; None means 5.
        batch_size: Images per batch for a classifier; None means 32. A detector processes one image at a time.
        threshold: Lowest score of a detector's box, in [0, 1]; None means 0.5.

    Returns:
        List of the labels or boxes of one image, or a list of such lists if several were given. See `vithub.predict`.
    """
    for name, value in {"top": top, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise ValueError(f"{argument(name)} must be at least 1, got {value}")
    opened, one = opened_images(images)
    folder = Path(model.config.name_or_path or type(model).__name__)
    held = HeldModel(model, model.config, processor, folder, "the model in memory", dtype=model.dtype)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        predictor = task_of(model).open_images(
            folder, top=top, batch_size=batch_size, threshold=threshold, output=None, backend=held
        )
        found = [entry["predictions"] for entry in predictor.predictions(iter(opened))]
    finally:
        _restore(modes)
    return found[0] if one else found


def _restore(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


__all__ = ["predict_images"]
