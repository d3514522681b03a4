"""Any vision model that can be looked at, as its own library computes it: classifier, detector or backbone."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    PreTrainedModel,
)

from ..configuration.model_task import CLASSIFICATION, DETECTION, model_task
from .checkpoints import locate, read_config
from .conversion.opening import open_checkpoint
from .inference_loading import load_for_inference, load_processor

_AUTO_CLASSES = {CLASSIFICATION: AutoModelForImageClassification, DETECTION: AutoModelForObjectDetection}
_KINDS = {
    AutoModel: "a vision model",
    AutoModelForImageClassification: "an image classifier",
    AutoModelForObjectDetection: "an object detector",
}


def load_any_model(
    source: str | Path, revision: str | None = None, token: str | None = None
) -> tuple[PreTrainedModel, Any]:
    """A model in evaluation mode, and its image processor.

    What the folder's configuration names is what is loaded: a classifier (timm's in the wrapper of transformers), a
    detector, or a backbone without a head. A checkpoint that is no such folder is converted as by `load`. No code of
    the folder is run.

    Args:
        source: A folder, file or Hub id.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None takes that of the login.

    Raises:
        CheckpointError: It is missing, damaged or of an unknown kind.
    """
    path = locate(source, revision, token)
    if not path.is_dir() or not (path / "config.json").is_file():
        opened = open_checkpoint(path, verify=False)
        return opened.model, opened.image_processor
    auto_class = _auto_class(read_config(path))
    return load_for_inference(auto_class, path, _KINDS[auto_class]), _image_processor(path)


def _auto_class(config: dict[str, Any]) -> Any:
    return _AUTO_CLASSES.get(model_task(config) or "", AutoModel)


def _image_processor(path: Path) -> Any:
    if (path / "preprocessor_config.json").is_file() or "architecture" in read_config(path):
        return load_processor(path)
    return open_checkpoint(path, verify=False).image_processor


__all__ = ["load_any_model"]
