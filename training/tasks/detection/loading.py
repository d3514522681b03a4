"""Loader for object detectors: a run, a model of this package, or one of transformers."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForObjectDetection

from ....configuration.model_task import DETECTION, model_task
from ....hub.checkpoints import CheckpointError, locate, read_config
from ....hub.exported.exported_model import load_exported
from ....hub.exported.forms import choose_form
from ....hub.inference_loading import PROCESSOR, load_for_inference, load_processor
from ....hub.missing_models import without_config
from ....hub.ready_model import Backend, HeldModel, ReadyModel, ready_for
from ....modeling.detector_output import MOST_FOUND, found_objects
from .detections import Detections

# Prefixes of image processors' class names, by how they decode the logits.
_DROPS_LAST = ("DetrImageProcessor", "YolosImageProcessor")
_KEEPS_ALL = ("DeformableDetr", "ConditionalDetr", "RTDetr")


def load_detector(source: str | Path, revision: str | None = None, backend: Backend = None) -> tuple[Any, Any]:
    """Loads a detector in evaluation mode, in the dtype of its weights, and its image processor.

    Args:
        source: Folder or Hub id.
        revision: Branch, tag or commit of a Hub id.
        backend: Exported form to run, such as "onnx" (see `choose_form`), or a loaded model to run in place of it.

    Raises:
        CheckpointError: The source is not a folder with a detector, or one of its files is missing, damaged or
            inconsistent with the others.
    """
    if isinstance(backend, HeldModel):
        return backend, backend.image_processor
    path = locate(source, revision)
    if not (path / "config.json").is_file():
        raise CheckpointError(without_config(path))
    if (task := model_task(read_config(path))) != DETECTION:
        raise CheckpointError(f"{source} must be an object detector, and its config.json is of a model for {task}")
    if isinstance(backend, ReadyModel):
        return ready_for(path, backend)
    if (form := choose_form(path, backend)) is not None:
        model: Any = load_exported(path, form.name)
    else:
        model = load_for_inference(AutoModelForObjectDetection, path, "an object detector")
    return model, getattr(model, "image_processor", None) or load_detector_processor(path)


def load_detector_processor(path: Path) -> Any:
    """Loads the image processor of a detector.

    Raises:
        CheckpointError: `preprocessor_config.json` is missing or damaged, or gives no processor of a detector.
    """
    processor = load_processor(path)
    if not hasattr(processor, "post_process_object_detection"):
        raise CheckpointError(f"{path / PROCESSOR} names {type(processor).__name__}, which is not one of a detector")
    return processor


def read_outputs(processor: Any, outputs: Any, sizes: torch.Tensor, num_labels: int) -> list[Detections]:
    """Decodes boxes as `pipeline` does, with all scores.

    A processor of an unknown kind decodes the outputs itself.

    Args:
        processor: Image processor saved beside the model.
        outputs: Model output with `logits` (B, Q, C) or (B, Q, C + 1) and `pred_boxes` (B, Q, 4).
        sizes: Height and width in pixels of the upright images, (B, 2).
        num_labels: Number of classes C.

    Raises:
        ValueError: The processor would decode the logits wrongly, or they are not finite.
    """
    for name in ("logits", "pred_boxes"):
        outputs[name] = outputs[name].detach().float().cpu()
        if not bool(torch.isfinite(outputs[name]).all()):
            raise ValueError(f"the model's {name} are infinite or not a number")
    processor = getattr(processor, "decoder", processor)  # of a form that preprocesses images itself
    kind = type(processor).__name__
    _check_reading(kind, outputs.logits.shape[-1], num_labels)
    if not kind.startswith(_DROPS_LAST + _KEEPS_ALL):
        read = processor.post_process_object_detection(outputs, threshold=-1.0, target_sizes=sizes)
        return [Detections.best(one["boxes"], one["scores"], one["labels"]) for one in read]
    most = outputs.logits.shape[1] if kind.startswith("RTDetr") else MOST_FOUND
    scales = sizes.flip(1).repeat(1, 2)  # (B, 4): width, height, width, height
    found = found_objects(outputs.logits, outputs.pred_boxes, num_labels, most)
    return [
        Detections.best(one.boxes * scale, one.scores, one.labels) for one, scale in zip(found, scales, strict=True)
    ]


def _check_reading(kind: str, classes: int, num_labels: int) -> None:
    """Rejects logits that a processor misreads: DETR's drops the last, "no object"; Deformable DETR's keeps all."""
    drops_last, keeps_all = kind.startswith(_DROPS_LAST), kind.startswith(_KEEPS_ALL)
    if (drops_last and classes != num_labels + 1) or (keeps_all and classes != num_labels):
        raise ValueError(
            f"the model gives {classes} scores per query for {num_labels} classes, which {kind} would read wrongly: "
            "with a score for no object it must be a DetrImageProcessor, with the focal loss a "
            "DeformableDetrImageProcessor"
        )


__all__ = ["load_detector", "load_detector_processor", "read_outputs"]
