"""Loader for image classifiers: a run, a model of this package, or one of transformers or timm."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForImageClassification

from ....hub.checkpoints import CheckpointError, locate
from ....hub.exported.exported_model import load_exported
from ....hub.exported.forms import choose_form
from ....hub.inference_loading import load_for_inference, load_processor
from ....hub.missing_models import without_config
from ....hub.ready_model import Backend, HeldModel, ReadyModel, ready_for


def load_classifier(source: str | Path, revision: str | None = None, backend: Backend = None) -> tuple[Any, Any]:
    """Loads a classifier in evaluation mode, in the dtype of its weights, and its image processor.

    Args:
        source: Folder or Hub id.
        revision: Branch, tag or commit of a Hub id.
        backend: Exported form to run, such as "onnx" (see `choose_form`), or a loaded model to run in place of it.

    Raises:
        CheckpointError: The source is not a folder with a classifier, or one of its files is missing, damaged or
            inconsistent with the others.
    """
    if isinstance(backend, HeldModel):
        return backend, backend.image_processor
    path = locate(source, revision)
    if not path.is_dir() or not (path / "config.json").is_file():
        raise CheckpointError(without_config(path))
    if isinstance(backend, ReadyModel):
        return ready_for(path, backend)
    if (form := choose_form(path, backend)) is not None:
        exported = load_exported(path, form.name)
        return exported, exported.image_processor or load_processor(path)
    model = load_for_inference(AutoModelForImageClassification, path, "an image classifier")
    return model, load_processor(path)


__all__ = ["load_classifier"]
