"""Loader for image classifiers: a run, a model of this package, or one of transformers or timm."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForImageClassification, PreTrainedModel

from ....hub.checkpoints import CheckpointError, locate
from ....hub.inference_loading import load_for_inference, load_processor


def load_classifier(source: str | Path, revision: str | None = None) -> tuple[PreTrainedModel, Any]:
    """Loads a classifier in evaluation mode, in the dtype of its weights, and its image processor.

    Raises:
        CheckpointError: The source is not a folder with a classifier, or one of its files is missing, damaged or
            inconsistent with the others.
    """
    path = locate(source, revision)
    if not path.is_dir() or not (path / "config.json").is_file():
        raise CheckpointError(f"{source} holds no config.json; name the folder of a run or of a saved classifier")
    model = load_for_inference(AutoModelForImageClassification, path, "an image classifier")
    return model, load_processor(path)


__all__ = ["load_classifier"]
