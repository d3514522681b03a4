"""Vision transformers that live on the Hugging Face Hub.

Importing this package registers its models with the Auto classes of transformers. Everything below is loaded on first
use.
"""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    AutoModelForObjectDetection,
    BitImageProcessor,
    BitImageProcessorPil,
    DetrImageProcessor,
    DetrImageProcessorPil,
    PreTrainedModel,
)

from .configuration.configuration_deit import HubDeiTConfig
from .configuration.configuration_detr import HubDetrConfig
from .configuration.configuration_vit import HubViTConfig
from .modeling.modeling_deit import HubDeiTForImageClassification, HubDeiTModel
from .modeling.modeling_detr import HubDetrForObjectDetection, HubDetrModel
from .modeling.modeling_vit import HubViTForImageClassification, HubViTForMaskedImageModeling, HubViTModel

if TYPE_CHECKING:
    from .comparison.comparing import compare
    from .data.box_report import check_data
    from .hub.conversion import load, load_image_processor
    from .hub.convert import convert
    from .hub.publishing import publish
    from .interpretability.attention_distance import attention_distance
    from .interpretability.attention_maps import attention_maps, attention_rows
    from .interpretability.explaining import explain
    from .interpretability.explanation import Explanation
    from .interpretability.explanation_methods import EXPLANATION_METHODS
    from .interpretability.faithfulness import faithfulness
    from .interpretability.faithfulness_protocol import FaithfulnessProtocol
    from .interpretability.layer_features import layer_features
    from .interpretability.patch_filters import patch_filters
    from .interpretability.position_similarity import position_similarity
    from .interpretability.projections import project
    from .interpretability.representation_similarity import cka
    from .training.finetuning import finetune
    from .training.predicting import predict, predict_stream
    from .training.run_evaluation import evaluate

__version__ = version("vithub")

# Where each name that is loaded on first use lives.
_HOMES = {
    "EXPLANATION_METHODS": "interpretability.explanation_methods",
    "Explanation": "interpretability.explanation",
    "FaithfulnessProtocol": "interpretability.faithfulness_protocol",
    "attention_distance": "interpretability.attention_distance",
    "attention_maps": "interpretability.attention_maps",
    "attention_rows": "interpretability.attention_maps",
    "check_data": "data.box_report",
    "cka": "interpretability.representation_similarity",
    "compare": "comparison.comparing",
    "convert": "hub.convert",
    "evaluate": "training.run_evaluation",
    "explain": "interpretability.explaining",
    "faithfulness": "interpretability.faithfulness",
    "finetune": "training.finetuning",
    "layer_features": "interpretability.layer_features",
    "load": "hub.conversion",
    "load_image_processor": "hub.conversion",
    "patch_filters": "interpretability.patch_filters",
    "position_similarity": "interpretability.position_similarity",
    "predict": "training.predicting",
    "predict_stream": "training.predicting",
    "project": "interpretability.projections",
    "publish": "hub.publishing",
}

__all__ = [
    "EXPLANATION_METHODS",
    "Explanation",
    "FaithfulnessProtocol",
    "HubDeiTConfig",
    "HubDeiTForImageClassification",
    "HubDeiTModel",
    "HubDetrConfig",
    "HubDetrForObjectDetection",
    "HubDetrModel",
    "HubViTConfig",
    "HubViTForImageClassification",
    "HubViTForMaskedImageModeling",
    "HubViTModel",
    "attention_distance",
    "attention_maps",
    "attention_rows",
    "check_data",
    "cka",
    "compare",
    "convert",
    "evaluate",
    "explain",
    "faithfulness",
    "finetune",
    "layer_features",
    "load",
    "load_image_processor",
    "patch_filters",
    "position_similarity",
    "predict",
    "predict_stream",
    "project",
    "publish",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vithub' has no attribute {name!r}")
    return getattr(import_module(f"vithub.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    processors: dict[str, type] = {"torchvision": BitImageProcessor, "pil": BitImageProcessorPil}
    for config_class, model_class in ((HubViTConfig, HubViTModel), (HubDeiTConfig, HubDeiTModel)):
        AutoConfig.register(config_class.model_type, config_class)
        AutoModel.register(config_class, model_class)
        AutoImageProcessor.register(config_class, image_processor_classes=processors)
    AutoConfig.register(HubDetrConfig.model_type, HubDetrConfig)
    AutoModel.register(HubDetrConfig, HubDetrModel)
    AutoModelForObjectDetection.register(HubDetrConfig, HubDetrForObjectDetection)
    detr_processors: dict[str, type] = {"torchvision": DetrImageProcessor, "pil": DetrImageProcessorPil}
    AutoImageProcessor.register(HubDetrConfig, image_processor_classes=detr_processors)
    AutoModelForImageClassification.register(HubViTConfig, HubViTForImageClassification)
    AutoModelForImageClassification.register(HubDeiTConfig, HubDeiTForImageClassification)
    AutoModelForMaskedImageModeling.register(HubViTConfig, HubViTForMaskedImageModeling)


def _write_bundle(model: PreTrainedModel, folder: Path) -> None:
    """Loads the bundle's code when the first model is saved."""
    import_module("vithub.hub.code_bundle").write_bundle(model, folder)


_register()
import_module("vithub.modeling.modeling_base").HubPreTrainedModel.save_hook = _write_bundle
