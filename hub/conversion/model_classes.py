"""Tasks, and the classes of this package by configuration and task."""

from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_detr import HubDetrConfig
from ...configuration.configuration_vit import HubViTConfig
from ...modeling.modeling_deit import HubDeiTForImageClassification, HubDeiTModel
from ...modeling.modeling_detr import HubDetrForObjectDetection, HubDetrModel
from ...modeling.modeling_vit import HubViTForImageClassification, HubViTForMaskedImageModeling, HubViTModel

# Model class by configuration class and task.
MODELS: dict[type[PreTrainedConfig], dict[str, type[PreTrainedModel]]] = {
    HubViTConfig: {
        "backbone": HubViTModel,
        "image-classification": HubViTForImageClassification,
        "masked-image-modeling": HubViTForMaskedImageModeling,
    },
    HubDeiTConfig: {"backbone": HubDeiTModel, "image-classification": HubDeiTForImageClassification},
    HubDetrConfig: {"backbone": HubDetrModel, "object-detection": HubDetrForObjectDetection},
}
CONFIG_CLASSES: dict[str, type[Any]] = {config_class.model_type: config_class for config_class in MODELS}
TASKS = ("backbone", "image-classification", "masked-image-modeling", "object-detection")


def task_of(architecture: str) -> str:
    """The task that a class name tells."""
    if "ForImageClassification" in architecture:
        return "image-classification"
    if architecture.endswith("ForObjectDetection"):
        return "object-detection"
    return "masked-image-modeling" if architecture.endswith("ForMaskedImageModeling") else "backbone"


def model_class_for(config_class: type[PreTrainedConfig], task: str) -> type[PreTrainedModel]:
    if task not in MODELS[config_class]:
        raise ValueError(
            f"there is no {config_class.__name__} model for {task!r}, only for {sorted(MODELS[config_class])}"
        )
    return MODELS[config_class][task]


__all__ = ["CONFIG_CLASSES", "MODELS", "TASKS", "model_class_for", "task_of"]
