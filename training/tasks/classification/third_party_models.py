"""Third-party image classifiers as models to train: CNNs and others of transformers and timm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel, logging

from ....data.image_processing import build_image_processor, pixel_format
from ....hub.checkpoints import CheckpointError, refuse_nonfinite
from ....hub.inference_loading import corrected_fields, refuse_unknown_type
from ...recipe.recipe import RecipeError
from ...recipe.sections import EvaluationSettings, ModelSettings

logger = logging.get_logger(__name__)


def third_party_classifier(
    path: Path, settings: ModelSettings, evaluation: EvaluationSettings, labels: Sequence[str], fields: dict[str, Any]
) -> tuple[PreTrainedModel, Any]:
    """Loads a classifier with transformers, in float32 and with the given labels, and builds an image processor for it.

    The head is kept if it has as many rows as there are labels; otherwise it is initialized anew, with a warning.

    Args:
        path: Folder of the model.
        settings: Model settings; `image_size` is the size of the input, and `patch_size` must be None.
        evaluation: Settings of the image processor.
        labels: Class names, in label order.
        fields: Fields of the model's configuration.

    Raises:
        CheckpointError: transformers cannot load it, or its weights are not finite.
        RecipeError: A patch size is given for a model that is not of this package.
    """
    if settings.patch_size is not None:
        raise RecipeError(f"model.patch_size: {path} is not a ViT of ours, got {settings.patch_size}")
    refuse_unknown_type(path)
    names = dict(enumerate(labels))
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # silences transformers' report of the new head; ours follows
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **corrected_fields(path) | fields)
        config.id2label, config.label2id = names, {name: number for number, name in names.items()}
        if hasattr(config, "label_names"):  # timm's field, which it saves in place of `id2label`
            config.label_names = list(labels)
        model, report = AutoModelForImageClassification.from_pretrained(
            path,
            config=config,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
        pixels = pixel_format(AutoImageProcessor.from_pretrained(path, trust_remote_code=False))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} could not be loaded as an image classifier: {error}") from error
    finally:
        logging.set_verbosity(verbosity)
    refuse_nonfinite(model.state_dict(), str(path))
    fresh = sorted({str(key[0]) for key in report["mismatched_keys"]} | set(report["missing_keys"]))
    if fresh:
        logger.warning("%s: not in the checkpoint and need training: %s", type(model).__name__, ", ".join(fresh))
    size = settings.image_size or pixels.image_hw
    processor = build_image_processor(
        (size, size) if isinstance(size, int) else size,
        crop_ratio=evaluation.crop_ratio,
        mean=pixels.mean,
        std=pixels.std,
        interpolation=evaluation.interpolation,
    )
    if isinstance(timm := getattr(model.config, "pretrained_cfg", None), dict):
        model.config.pretrained_cfg = timm | timm_pixels(processor, evaluation)
    return model, processor


def timm_pixels(processor: Any, evaluation: EvaluationSettings) -> dict[str, Any]:
    """Returns the pixel format in timm's configuration fields, where transformers reads it, not in the processor."""
    pixels = pixel_format(processor)
    return {
        "input_size": [3, *pixels.image_hw],
        "crop_pct": evaluation.crop_ratio,
        "crop_mode": "center",
        "interpolation": evaluation.interpolation,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
    }


__all__ = ["third_party_classifier", "timm_pixels"]
