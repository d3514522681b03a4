"""Vision transformers that live on the Hugging Face Hub.

After `import vithub` the Auto classes of transformers know its models, whichever of the two is imported first; see
`hub/auto_registration.py`. Everything below is loaded on first use, so that the import itself takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison.comparing import compare
    from .configuration.configuration_deit import HubDeiTConfig
    from .configuration.configuration_detr import HubDetrConfig
    from .configuration.configuration_vit import HubViTConfig
    from .deployment.exporting import export
    from .deployment.optimizing.optimizing import optimize
    from .hub.conversion.convert import convert
    from .hub.conversion.opening import load, load_image_processor
    from .hub.exported.exported_model import load_exported
    from .hub.push.publishing import publish
    from .interpretability.analysis.attention_distance import attention_distance
    from .interpretability.analysis.layer_features import layer_features
    from .interpretability.analysis.patch_filters import patch_filters
    from .interpretability.analysis.position_similarity import position_similarity
    from .interpretability.analysis.projections import project
    from .interpretability.analysis.representation_similarity import cka
    from .interpretability.capture.attention_maps import attention_maps, attention_rows
    from .interpretability.explanation.explaining import explain
    from .interpretability.explanation.explanation import Explanation
    from .interpretability.explanation.methods import EXPLANATION_METHODS
    from .interpretability.faithfulness.measurement import faithfulness
    from .interpretability.faithfulness.protocol import FaithfulnessProtocol
    from .modeling.modeling_deit import HubDeiTBackbone, HubDeiTForImageClassification, HubDeiTModel
    from .modeling.modeling_detr import HubDetrForObjectDetection, HubDetrModel
    from .modeling.modeling_vit import HubViTForImageClassification, HubViTForMaskedImageModeling, HubViTModel
    from .modeling.vit_backbone import HubViTBackbone
    from .training.data_check import check_data
    from .training.evaluation import evaluate
    from .training.finetuning import finetune
    from .training.prediction import predict, predict_stream
    from .training.pretraining import pretrain
    from .training.verification import verify

    __version__: str

# Where each name that is loaded on first use lives.
_HOMES = {
    "EXPLANATION_METHODS": "interpretability.explanation.methods",
    "Explanation": "interpretability.explanation.explanation",
    "FaithfulnessProtocol": "interpretability.faithfulness.protocol",
    "HubDeiTBackbone": "modeling.modeling_deit",
    "HubDeiTConfig": "configuration.configuration_deit",
    "HubDeiTForImageClassification": "modeling.modeling_deit",
    "HubDeiTModel": "modeling.modeling_deit",
    "HubDetrConfig": "configuration.configuration_detr",
    "HubDetrForObjectDetection": "modeling.modeling_detr",
    "HubDetrModel": "modeling.modeling_detr",
    "HubViTBackbone": "modeling.vit_backbone",
    "HubViTConfig": "configuration.configuration_vit",
    "HubViTForImageClassification": "modeling.modeling_vit",
    "HubViTForMaskedImageModeling": "modeling.modeling_vit",
    "HubViTModel": "modeling.modeling_vit",
    "attention_distance": "interpretability.analysis.attention_distance",
    "attention_maps": "interpretability.capture.attention_maps",
    "attention_rows": "interpretability.capture.attention_maps",
    "check_data": "training.data_check",
    "cka": "interpretability.analysis.representation_similarity",
    "compare": "comparison.comparing",
    "convert": "hub.conversion.convert",
    "evaluate": "training.evaluation",
    "export": "deployment.exporting",
    "explain": "interpretability.explanation.explaining",
    "faithfulness": "interpretability.faithfulness.measurement",
    "finetune": "training.finetuning",
    "layer_features": "interpretability.analysis.layer_features",
    "load": "hub.conversion.opening",
    "load_exported": "hub.exported.exported_model",
    "load_image_processor": "hub.conversion.opening",
    "optimize": "deployment.optimizing.optimizing",
    "patch_filters": "interpretability.analysis.patch_filters",
    "position_similarity": "interpretability.analysis.position_similarity",
    "predict": "training.prediction",
    "predict_stream": "training.prediction",
    "pretrain": "training.pretraining",
    "project": "interpretability.analysis.projections",
    "publish": "hub.push.publishing",
    "verify": "training.verification",
}

__all__ = [
    "EXPLANATION_METHODS",
    "Explanation",
    "FaithfulnessProtocol",
    "HubDeiTBackbone",
    "HubDeiTConfig",
    "HubDeiTForImageClassification",
    "HubDeiTModel",
    "HubDetrConfig",
    "HubDetrForObjectDetection",
    "HubDetrModel",
    "HubViTBackbone",
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
    "export",
    "faithfulness",
    "finetune",
    "layer_features",
    "load",
    "load_exported",
    "load_image_processor",
    "optimize",
    "patch_filters",
    "position_similarity",
    "predict",
    "predict_stream",
    "pretrain",
    "project",
    "publish",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("vithub")
    if name not in _HOMES:
        raise AttributeError(f"module 'vithub' has no attribute {name!r}")
    return getattr(import_module(f"vithub.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


import_module("vithub.hub.auto_registration").register_when_imported({
    "predict": "vithub.training.model_prediction:predict_images",
    "explain": "vithub.interpretability.explanation.model_explanation:explain_images",
})  # fmt: skip
