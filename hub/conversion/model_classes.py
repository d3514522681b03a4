"""Tasks of this package's models, and the model classes by configuration class and task."""

from difflib import get_close_matches
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from ...configuration.configuration_deit import HubDeiTConfig
from ...configuration.configuration_detr import HubDetrConfig
from ...configuration.configuration_vit import HubViTConfig
from ...configuration.model_task import CLASSIFICATION, DETECTION, model_task
from ...modeling.modeling_deit import HubDeiTBackbone, HubDeiTForImageClassification, HubDeiTModel
from ...modeling.modeling_detr import HubDetrForObjectDetection, HubDetrModel
from ...modeling.modeling_vit import HubViTForImageClassification, HubViTForMaskedImageModeling, HubViTModel
from ...modeling.vit_backbone import HubViTBackbone

FEATURE_MAPS = "feature-maps"
MODELS: dict[type[PreTrainedConfig], dict[str, type[PreTrainedModel]]] = {
    HubViTConfig: {
        "backbone": HubViTModel,
        FEATURE_MAPS: HubViTBackbone,
        "image-classification": HubViTForImageClassification,
        "masked-image-modeling": HubViTForMaskedImageModeling,
    },
    HubDeiTConfig: {
        "backbone": HubDeiTModel,
        FEATURE_MAPS: HubDeiTBackbone,
        "image-classification": HubDeiTForImageClassification,
    },
    HubDetrConfig: {"backbone": HubDetrModel, "object-detection": HubDetrForObjectDetection},
}
CONFIG_CLASSES: dict[str, type[Any]] = {config_class.model_type: config_class for config_class in MODELS}
_HEAD_OF_TASK = {CLASSIFICATION: "image-classification", DETECTION: "object-detection"}
TASKS = ("backbone", FEATURE_MAPS, "image-classification", "masked-image-modeling", "object-detection")


def head_of(architecture: str) -> str:
    """Task of a model class by its class name, such as "image-classification"; "backbone" if it has no head."""
    if (task := model_task({"architectures": [architecture]})) is not None:
        return _HEAD_OF_TASK[task]
    if architecture.endswith("Backbone"):
        return FEATURE_MAPS
    return "masked-image-modeling" if architecture.endswith("ForMaskedImageModeling") else "backbone"


def model_class_for(config_class: type[PreTrainedConfig], task: str) -> type[PreTrainedModel]:
    """Model class of this package for a configuration class and a task.

    Raises:
        ValueError: There is no such model; the message lists the possible tasks.
    """
    if task not in MODELS[config_class]:
        raise ValueError(
            f"there is no {config_class.__name__} model for {task!r}, only for {sorted(MODELS[config_class])}"
        )
    return MODELS[config_class][task]


def refuse_unknown_field(config: PreTrainedConfig, name: str) -> None:
    """Raises a `ValueError` for a name that is no field of a configuration; it suggests the one that may be meant."""
    if not hasattr(config, name):
        near = get_close_matches(name, vars(config))
        meant = f"; did you mean `{near[0]}`?" if near else f"; fields are {', '.join(sorted(config.to_diff_dict()))}"
        raise ValueError(f"`{name}` is no field of {type(config).__name__}{meant}")


__all__ = ["CONFIG_CLASSES", "FEATURE_MAPS", "MODELS", "TASKS", "head_of", "model_class_for", "refuse_unknown_field"]
