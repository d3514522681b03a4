"""Any object detector that can be loaded: a run, one of ours, one of transformers."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection, PreTrainedModel

from ..hub.checkpoints import CheckpointError, locate
from .detections import Detections


def is_detector(path: Path) -> bool:
    """Whether a folder holds an object detector, by its configuration."""
    file = path / "config.json"
    if not file.is_file():
        return False
    try:
        architectures = json.loads(file.read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return any("ObjectDetection" in str(name) for name in architectures)


def load_detector(source: str | Path, revision: str | None = None) -> tuple[PreTrainedModel, Any]:
    """A detector in evaluation mode, in the type of its weights, and its image processor.

    Raises:
        CheckpointError: The source is no folder with a detector, or its processor reads its answers in another way.
    """
    path = locate(source, revision)
    if not is_detector(path):
        raise CheckpointError(f"{source} holds no config.json of an object detector; name the folder of a run")
    try:
        model = AutoModelForObjectDetection.from_pretrained(path, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} could not be loaded as an object detector: {error}") from error
    if not hasattr(processor, "post_process_object_detection"):
        raise CheckpointError(f"{source}: its processor {type(processor).__name__} is not one of a detector")
    return model.eval(), processor


def read_outputs(processor: Any, outputs: Any, sizes: torch.Tensor, num_labels: int) -> list[Detections]:
    """Boxes as `pipeline` gives them, by the saved processor, with all scores.

    Args:
        processor: Of the model.
        outputs: With `logits` (B, Q, C) or (B, Q, C + 1) and `pred_boxes` (B, Q, 4).
        sizes: (B, 2), height and width in pixels of the upright images.
        num_labels: C.

    Raises:
        ValueError: The processor would read the logits wrongly, or they are not finite.
    """
    for name in ("logits", "pred_boxes"):
        outputs[name] = outputs[name].detach().float().cpu()
        if not bool(torch.isfinite(outputs[name]).all()):
            raise ValueError(f"the model's {name} are infinite or not a number")
    _check_reading(processor, outputs.logits.shape[-1], num_labels)
    read = processor.post_process_object_detection(outputs, threshold=-1.0, target_sizes=sizes)
    return [Detections.best(one["boxes"], one["scores"], one["labels"]) for one in read]


def _check_reading(processor: Any, classes: int, num_labels: int) -> None:
    """DETR's processor leaves out the last logit, "no object"; that of Deformable DETR takes all as classes."""
    kind = type(processor).__name__
    drops_last = kind.startswith(("DetrImageProcessor", "YolosImageProcessor"))
    keeps_all = kind.startswith(("DeformableDetr", "ConditionalDetr", "RTDetr"))
    if (drops_last and classes != num_labels + 1) or (keeps_all and classes != num_labels):
        raise ValueError(
            f"the model gives {classes} scores per query for {num_labels} classes, which {kind} would read wrongly: "
            "with a score for no object it must be a DetrImageProcessor, with the focal loss a "
            "DeformableDetrImageProcessor"
        )


__all__ = ["is_detector", "load_detector", "read_outputs"]
