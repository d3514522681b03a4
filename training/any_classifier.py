"""Any image classifier that can be loaded: a run, one of ours, one of transformers or timm."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel

from ..hub.checkpoints import CheckpointError, locate


def load_classifier(source: str | Path, revision: str | None = None) -> tuple[PreTrainedModel, Any]:
    """A classifier in evaluation mode, in the type of its weights, and its image processor.

    Raises:
        CheckpointError: The source is no folder with a classifier.
    """
    path = locate(source, revision)
    if not path.is_dir() or not (path / "config.json").is_file():
        raise CheckpointError(f"{source} holds no config.json; name the folder of a run or of a saved classifier")
    try:
        model = AutoModelForImageClassification.from_pretrained(path, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} could not be loaded as an image classifier: {error}") from error
    return model.eval(), processor


__all__ = ["load_classifier"]
