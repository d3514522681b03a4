"""Loading of any classifier, detector or backbone for explanation, computed by the library it belongs to."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
)

from ..configuration.model_task import CLASSIFICATION, DETECTION, model_task
from .checkpoints import read_config
from .conversion.opening import open_checkpoint
from .exported.exported_model import load_exported
from .exported.forms import SOURCE, BackendError, choose_form, locate_model
from .inference_loading import load_for_inference, load_processor

_AUTO_CLASSES = {CLASSIFICATION: AutoModelForImageClassification, DETECTION: AutoModelForObjectDetection}
_KINDS = {
    AutoModel: "a vision model",
    AutoModelForImageClassification: "an image classifier",
    AutoModelForObjectDetection: "an object detector",
}


def load_any_model(
    source: str | Path, revision: str | None = None, token: str | None = None, backend: str | None = None
) -> tuple[Any, Any]:
    """Loads a model in evaluation mode and its image processor.

    The folder's configuration decides what is loaded: a classifier (a timm model in the wrapper of transformers), a
    detector, or a backbone without a head. Any other checkpoint is converted as by `load`. Code in the folder is never
    run.

    Args:
        source: Folder, file or Hub id of the checkpoint.
        revision: Branch, tag or commit on the Hub.
        token: Access token of the Hub; None uses the token of the login.
        backend: Exported form to run, such as "onnx"; see `choose_form`.

    Raises:
        BackendError: There is no such exported form.
        CheckpointError: The checkpoint is missing, damaged or of an unknown kind, or a folder with `config.json` does
            not say how an image becomes pixels.
    """
    path = locate_model(source, backend, revision, token)
    if not path.is_dir() or not (path / "config.json").is_file():
        if backend not in (None, SOURCE):
            raise BackendError(f"{source} is no folder with exported forms: {backend!r} cannot be run")
        opened = open_checkpoint(path, verify=False)
        return opened.model, opened.image_processor
    if (form := choose_form(path, backend)) is not None:
        exported = load_exported(path, form.name)
        return exported, exported.image_processor or load_processor(path)
    auto_class = _auto_class(read_config(path))
    return load_for_inference(auto_class, path, _KINDS[auto_class]), load_processor(path)


def _auto_class(config: dict[str, Any]) -> Any:
    return _AUTO_CLASSES.get(model_task(config) or "", AutoModel)


__all__ = ["load_any_model"]
