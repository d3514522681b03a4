"""Task of a model, by its class: the one place that tells classifiers and detectors apart.

It lies this low because rooms that may not know each other ask it: the card and the page, explanations and training.
"""

from collections.abc import Callable, Mapping
from typing import Any

CLASSIFICATION, DETECTION = "classification", "detection"

Suits = Callable[[str, Mapping[str, Any]], bool]

# Name of each task, and whether a class of models with a configuration is for it; later ones are asked first.
_TASKS: dict[str, Suits] = {
    CLASSIFICATION: lambda name, _: "ImageClassification" in name,
    DETECTION: lambda name, _: "ObjectDetection" in name,
}


def register_model_task(name: str, suits: Suits) -> None:
    """Adds a task.

    Args:
        name: Name of the task, as the `task` of a recipe.
        suits: Called with the name of a model's class and its configuration as plain data.
    """
    _TASKS[name] = suits


def model_task(what: Any) -> str | None:
    """Name of the task of a model; None of a backbone without a head.

    Args:
        what: A model, or the content of a `config.json`, whose first architecture counts. The `config.json` of a model
            of timm names one `architecture`, which is a classifier.
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
