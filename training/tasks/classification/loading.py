"""Any image classifier that can be loaded: a run, one of ours, one of transformers or timm."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForImageClassification, PreTrainedModel

from ....hub.checkpoints import CheckpointError, locate
from ....hub.inference_loading import load_for_inference, load_processor


def load_classifier(source: str | Path, revision: str | None = None) -> tuple[PreTrainedModel, Any]:
    """A classifier in evaluation mode, in the type of its weights, and its image processor.

    Raises:
        CheckpointError: The source is no folder with a classifier, or one of its files is missing, damaged or does not
            fit the others.
    """
    path = locate(source, revision)
    if not path.is_dir() or not (path / "config.json").is_file():
        raise CheckpointError(f"{source} holds no config.json; name the folder of a run or of a saved classifier")
    model = load_for_inference(AutoModelForImageClassification, path, "an image classifier")
    return model, load_processor(path)


__all__ = ["load_classifier"]
