"""Option of evaluations and predictions to answer from an image and its mirror image."""

from pathlib import Path
from typing import Any

from ...data.argument_names import stated
from ...hub.ready_model import Backend, ReadyModel


def mirrored_model(task: Any, path: Path, backend: Backend) -> ReadyModel:
    """Returns a model to run in place of a folder's, which answers from an image and its mirror image.

    Args:
        task: Task of the model; one with a method `open_mirrored` can do so.
        path: Folder of the model.
        backend: Exported form, or a loaded model, whose answers are averaged; None takes what is there.

    Raises:
        ValueError: The task has no such model.
    """
    if not hasattr(task, "open_mirrored"):
        raise ValueError(
            f"{stated(mirrored=True)} has no effect on a model for {task.name}: only classifiers average over mirror "
            "images"
        )
    model: ReadyModel = task.open_mirrored(path, backend)
    return model


__all__ = ["mirrored_model"]
