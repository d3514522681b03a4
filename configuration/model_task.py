"""Task of a model, determined from its class name: the only code that tells classifiers and detectors apart.

It is in this folder because packages that may not import each other need it: model cards and model pages, explanations
and training.
"""

from collections.abc import Callable, Mapping
from typing import Any

CLASSIFICATION, DETECTION = "classification", "detection"

Suits = Callable[[str, Mapping[str, Any]], bool]

# Predicate of each task by name, called with a model's class name and configuration; later tasks are asked first.
_TASKS: dict[str, Suits] = {
    CLASSIFICATION: lambda name, _: "ImageClassification" in name,
    DETECTION: lambda name, _: "ObjectDetection" in name,
}


def register_model_task(name: str, suits: Suits) -> None:
    """Registers a task; it takes precedence over those registered before.

    Args:
        name: Name of the task, as in the field `task` of a recipe.
        suits: Predicate that is called with the name of a model's class and its configuration as plain data, and
            returns whether the model is for the task.
    """
    _TASKS[name] = suits


def model_task(what: Any) -> str | None:
    """Name of the task of a model; None for a backbone without a head.

    Args:
        what: Model, or content of a `config.json`, whose first entry of `architectures` is used. The `config.json` of
            a timm model has the field `architecture` instead and stands for a classifier.
    """
    if isinstance(what, Mapping):
        config = what
        classes = what.get("architectures")
        name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
        if not name and "architecture" in what:
            return CLASSIFICATION
    else:
        name = type(what).__name__
        config = what.config.to_dict() if hasattr(getattr(what, "config", None), "to_dict") else {}
    return next((task for task, suits in reversed(_TASKS.items()) if suits(name, config)), None)


__all__ = ["CLASSIFICATION", "DETECTION", "model_task", "register_model_task"]
