"""Tiny detectors of transformers, one of each model type that it can train, drawn from a seed."""

from typing import Any

import torch
import transformers

SIDE = 64  # pixels of the images that their processors make, where a processor makes images of one size

_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_DETR = {
    "backbone_config": {**_RESNET, "out_features": ["stage4"]},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 10,
    "auxiliary_loss": True,
    "dropout": 0.0,
}
_RT = {
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "encoder_in_channels": [16, 16, 16],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "hidden_expansion": 0.5,
    "d_model": 32,
    "num_queries": 10,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_n_points": 2,
    "num_denoising": 10,
}
_HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 16, 16],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 16, 16, 16],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, False, False],
    "stage_kernel_size": [3, 3, 3, 3],
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "embedding_size": 8,
    "out_features": ["stage2", "stage3", "stage4"],
}
_FINE = {**_RT, "backbone_config": _HGNET, "lqe_hidden_dim": 8, "depth_mult": 1.0, "max_num_bins": 8}
_LW = {
    "hidden_expansion": 0.5,
    "c2f_num_blocks": 1,
    "d_model": 32,
    "decoder_ffn_dim": 32,
    "decoder_n_points": 2,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "num_queries": 10,
    "group_detr": 2,
    "dropout": 0.0,
}
_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": SIDE}

# Configuration fields of each model type.
FIELDS: dict[str, dict[str, Any]] = {
    "conditional_detr": _DETR,
    "d_fine": _FINE,
    "dab-detr": {**{name: value for name, value in _DETR.items() if name != "d_model"}, "hidden_size": 32},
    "deformable_detr": {
        **_DETR,
        "backbone_config": {**_RESNET, "out_features": ["stage2", "stage3", "stage4"]},
        "num_feature_levels": 3,
        "encoder_n_points": 2,
        "decoder_n_points": 2,
    },
    "deimv2": _FINE,
    "detr": _DETR,
    "lw_detr": {
        **_LW,
        "projector_scale_factors": [1.0],
        "backbone_config": {
            **_VIT,
            "model_type": "lw_detr_vit",
            "pretrain_image_size": SIDE,
            "patch_size": 8,
            "num_windows": 4,
            "window_block_indices": [0],
            "out_indices": [1, 2],
        },
    },
    "rf_detr": {
        **_LW,
        "backbone_config": {
            **_VIT,
            "model_type": "rf_detr_dinov2",
            "patch_size": 8,
            "num_windows": 2,
            "out_indices": [1, 2],
        },
    },
    "rt_detr": _RT,
    "rt_detr_v2": _RT,
    "table-transformer": _DETR,
    "yolos": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": [SIDE, SIDE],
        "patch_size": 8,
        "num_detection_tokens": 10,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "auxiliary_loss": False,
    },
}
_SQUARE = {"height": SIDE, "width": SIDE}
_SHORTEST = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
# Image processor of each model type, and the size of its images.
_PROCESSORS: dict[str, tuple[str, dict[str, int]]] = {
    "conditional_detr": ("ConditionalDetrImageProcessor", _SHORTEST),
    "dab-detr": ("ConditionalDetrImageProcessor", _SHORTEST),
    "deformable_detr": ("DeformableDetrImageProcessor", _SHORTEST),
    "detr": ("DetrImageProcessor", _SHORTEST),
    "lw_detr": ("DeformableDetrImageProcessor", _SQUARE),
    "rf_detr": ("RfDetrImageProcessor", _SQUARE),
    "table-transformer": ("DetrImageProcessor", _SHORTEST),
    "yolos": ("YolosImageProcessor", _SHORTEST),
}


def tiny_config(model_type: str, names: tuple[str, ...] = ("red", "blue"), **fields: Any) -> Any:
    """Configuration of a tiny detector.

    Args:
        model_type: Model type of transformers, a key of `FIELDS`.
        names: Class names.
        **fields: Configuration fields to override.
    """
    given = {**FIELDS[model_type], "id2label": dict(enumerate(names)), **fields}
    return transformers.AutoConfig.for_model(model_type, **given)


def tiny_detector(model_type: str, names: tuple[str, ...] = ("red", "blue"), seed: int = 0, **fields: Any) -> Any:
    """Tiny detector in evaluation mode, with weights drawn from `seed`; the arguments are those of `tiny_config`."""
    torch.manual_seed(seed)
    config = tiny_config(model_type, names, **fields)
    return transformers.AutoModelForObjectDetection.from_config(config).eval()


def tiny_processor(model_type: str) -> Any:
    """Image processor of a model type, for images of `SIDE` pixels."""
    name, size = _PROCESSORS.get(model_type, ("RTDetrImageProcessor", _SQUARE))
    return getattr(transformers, name)(size=dict(size))
