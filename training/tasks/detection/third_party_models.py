"""Detectors of transformers as models to train: loaded completely, with the data's labels and their own processor."""

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForObjectDetection, PreTrainedModel
from transformers.utils import logging

from ....configuration.configuration_detr import HubDetrConfig
from ....configuration.model_task import DETECTION, model_task
from ....hub.checkpoints import CheckpointError, listed, read_config
from ....hub.inference_loading import first_line, load_for_inference
from ...recipe.recipe import RecipeError
from .loading import load_detector_processor
from .third_party_losses import computes_loss

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Start:
    """What a detector began from, and which of its tensors began anew.

    Args:
        kept: Classes that the checkpoint has under the same name, whose weights were kept.
        new: Classes whose weights begin anew.
        rows: Tensors with a row per class, in which the rows of new classes begin anew.
        whole: Tensors that begin anew as a whole.
        thawed: Whether stages of the backbone learn that transformers froze by mistake.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    rows: tuple[str, ...]
    whole: tuple[str, ...]
    thawed: bool = False

    def facts(self) -> dict[str, list[str]]:
        """Returns the entries of `metrics.json`."""
        return {
            "kept_classes": list(self.kept),
            "new_classes": list(self.new),
            "class_rows": list(self.rows) if self.new else [],
            "reinitialised": list(self.whole),
        }

    def lines(self) -> list[str]:
        """Returns a line for the log on each kind of tensors that begin anew."""
        lines = []
        if self.new:
            kept = f"; kept by name: {listed(self.kept)}" if self.kept else ""
            classes = f"{len(self.new)} class{'' if len(self.new) == 1 else 'es'}"
            lines.append(f"begin anew: the rows of {classes} ({listed(self.new)}) in {listed(self.rows)}{kept}")
        if self.whole:
            lines.append(f"begin anew, as fields of the configuration changed their shapes: {listed(self.whole)}")
        if self.thawed:
            lines.append(
                "corrected: transformers freezes the whole ResNet of its own, as it looks for other names than its "
                "stages have; stages 2 to 4 learn here, as in DETR"
            )
        return lines


def third_party_detector(
    path: Path, labels: Sequence[str], fields: dict[str, Any], image_size: int | tuple[int, int] | None
) -> tuple[PreTrainedModel, Any, Start]:
    """Loads a detector in transformers' own class, in float32 and with the given classes, with its image processor.

    Every tensor must be in the checkpoint. Classes that it has under the same name keep their weights; those of others
    are drawn from torch's generator.

    Args:
        path: Folder of the model.
        labels: Class names, in label order.
        fields: Fields of the model's configuration to change.
        image_size: Shorter side of the images in pixels, or (height, width) where the processor makes images of one
            size; None keeps the processor's.

    Raises:
        CheckpointError: The folder is no complete detector, or the model computes no loss.
        RecipeError: A field or the size does not suit the model.
    """
    stored: Any = load_for_inference(AutoModelForObjectDetection, path, "an object detector")
    stored.float()
    model, start = with_labels(stored, labels, fields)
    processor = load_detector_processor(path)
    if image_size is not None:
        processor = resized_processor(processor, image_size)
    check_trainable(model, processor, path, given=image_size)
    for line in start.lines():
        logger.warning("%s: %s", type(model).__name__, line)
    return model, processor, start


def with_labels(stored: Any, labels: Sequence[str], fields: dict[str, Any]) -> tuple[PreTrainedModel, Start]:
    """Makes a model with other classes and fields of the configuration, and copies the weights that it can keep.

    Args:
        stored: Detector of transformers in fp32, whose configuration names its classes.
        labels: Class names, in label order.
        fields: Fields of the configuration to change.

    Raises:
        RecipeError: The configuration has no such field, or the model cannot be built with it.
    """
    old = {str(name): number for number, name in stored.config.id2label.items()}
    model = _built(_changed(stored.config, labels, fields))
    with torch.device("meta"):
        wider = _built(_changed(stored.config, [*labels, "one more"], fields)).state_dict()
    state, before, rows, whole = model.state_dict(), stored.state_dict(), [], []
    with torch.no_grad():
        for name, tensor in state.items():
            source, depends = before.get(name), tensor.shape != wider[name].shape
            if source is None or not _fits(tensor, source, len(labels), len(old), depends):
                whole.append(name)
            elif depends:
                rows.append(name)
                for number, label in enumerate(labels):
                    if label in old:
                        tensor[number].copy_(source[old[label]])
                tensor[len(labels) :].copy_(source[len(old) :])  # no object, or padding
            else:
                tensor.copy_(source)
    kept = tuple(label for label in labels if label in old)
    new = tuple(label for label in labels if label not in old)
    start = Start(kept, new, tuple(rows), tuple(whole), thaw_backbone(model))
    return model.eval(), start


def thaw_backbone(model: PreTrainedModel) -> bool:
    """Lets stages 2 to 4 of a ResNet of transformers learn in the backbone of a DETR, if no parameter of it does.

    transformers means to freeze the stem and the first stage. It looks for "stage.1", and the names have "stages.1".
    """
    backbone = [(name, parameter) for name, parameter in model.named_parameters() if ".backbone." in name]
    later = [parameter for name, parameter in backbone if re.search(r"\.encoder\.stages\.[123]\.", name)]
    if not later or any(parameter.requires_grad for _, parameter in backbone):
        return False
    for parameter in later:
        parameter.requires_grad_(True)
    return True


def _fits(tensor: torch.Tensor, source: torch.Tensor, count: int, old: int, depends: bool) -> bool:
    """Whether a tensor can be copied: of the same shape, or with a row per class and the same further rows."""
    if not depends:
        return tensor.shape == source.shape
    return tensor.shape[1:] == source.shape[1:] and len(tensor) - count == len(source) - old


def _changed(config: Any, labels: Sequence[str], fields: dict[str, Any]) -> Any:
    """Returns a copy of a configuration with other classes and fields, which downloads no weights of a backbone."""
    changed = copy.deepcopy(config)
    for name, value in fields.items():
        if not hasattr(changed, name):
            near = get_close_matches(name, changed.to_dict(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise RecipeError(f"model.fields.{name}: {type(changed).__name__} has no such field, got {value!r}{hint}")
        setattr(changed, name, value)
    changed.id2label = dict(enumerate(labels))
    changed.label2id = {label: number for number, label in enumerate(labels)}
    changed.dtype = torch.float32
    backbone: Any = getattr(changed, "backbone_config", None)
    for part in (changed, backbone):
        if getattr(part, "use_pretrained_backbone", False):
            part.use_pretrained_backbone = False
    return changed


def _built(config: Any) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForObjectDetection.from_config(config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(f"model: {type(config).__name__} makes no model: {first_line(error)}") from error
    return model


def fixed_size(processor: Any) -> tuple[int, int] | None:
    """Returns the (height, width) of all images that a processor makes; None if it keeps their shapes."""
    size = processor.to_dict().get("size") or {}
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None


def size_multiple(config: Any) -> int:
    """Returns the number of pixels of which the sides of a model's images must be multiples.

    A ViT with windows needs whole windows of patches, any other backbone its largest stride.
    """
    backbone = getattr(config, "backbone_config", None)
    patch, windows = getattr(backbone, "patch_size", None), getattr(backbone, "num_windows", None)
    if isinstance(patch, int) and isinstance(windows, int):
        # LW-DETR counts all windows of an image, RF-DETR those along a side
        return patch * (math.isqrt(windows) if config.model_type == "lw_detr" else windows)
    own = getattr(config, "patch_size", None)
    return own if isinstance(own, int) else 32


def resized_processor(processor: Any, image_size: int | tuple[int, int]) -> Any:
    """Makes a copy of a detector's image processor for another size.

    Args:
        processor: Image processor of transformers.
        image_size: Side of a square or (height, width) in pixels where the processor makes images of one size, else
            the shorter side; the longer one is scaled in proportion.

    Raises:
        RecipeError: A height and width are given for a processor that keeps the shapes of images.
    """
    values = processor.to_dict()
    if fixed_size(processor) is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        values["size"] = {"height": height, "width": width}
    elif isinstance(image_size, int):
        size = values["size"]
        longest = round(image_size * size["longest_edge"] / size["shortest_edge"])
        values["size"] = {"shortest_edge": image_size, "longest_edge": longest}
    else:
        raise RecipeError(
            f"model.image_size: the image processor keeps the shapes of images: it takes one number, the shorter "
            f"side's pixels, got {image_size}"
        )
    return type(processor).from_dict(values)


def check_trainable(model: Any, processor: Any, path: Path, given: Any = None) -> None:
    """Checks that a model computes a loss, and that it takes the images of its processor, by running it on one.

    Args:
        model: Detector in evaluation mode.
        processor: Its image processor.
        path: Folder of the model, for messages.
        given: Size that the recipe gives, for messages; None if it is the model's own.

    Raises:
        RecipeError: The model cannot take images of the given size.
        CheckpointError: The model computes no loss, or cannot be run on what its image processor makes.
    """
    kind = type(model).__name__
    if not computes_loss(model):
        raise CheckpointError(f"{path}: {kind} computes no loss, so that it can be evaluated but not trained")
    pixels = processor(Image.new("RGB", (64, 48)), return_tensors="pt")["pixel_values"]
    try:
        with torch.no_grad():
            model(pixels)
    except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
        height, width = pixels.shape[-2:]
        text = f"{kind} cannot be run on images of {height} x {width} pixels: {first_line(error)}"
        if given is None:
            raise CheckpointError(f"{path}: {text}") from error
        raise RecipeError(f"model.image_size: {text}") from error


def is_detector_of_transformers(path: Path) -> bool:
    """True if a folder holds a detector of transformers' own, not one of this package."""
    if not (path / "config.json").is_file():
        return False
    config = read_config(path)
    return model_task(config) == DETECTION and config.get("model_type") != HubDetrConfig.model_type


__all__ = [
    "Start",
    "check_trainable",
    "fixed_size",
    "is_detector_of_transformers",
    "resized_processor",
    "size_multiple",
    "third_party_detector",
    "with_labels",
]
