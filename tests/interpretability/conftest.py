"""Tiny models of every family that is explained."""

import pytest
import timm
import torch
import torchvision
import transformers as tf

import vithub

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}


def detr():
    return tf.DetrForObjectDetection(
        tf.DetrConfig(
            backbone_config=tf.ResNetConfig(**RESNET, out_features=["stage4"]),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            num_queries=7,
            num_labels=5,
        )
    )


def our_detr(backbone=None, **fields):
    backbone = backbone or tf.ResNetConfig(**RESNET, out_features=["stage4"])
    layers = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    widths = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 7, "num_labels": 5}
    return vithub.HubDetrForObjectDetection(
        vithub.HubDetrConfig(backbone_config=backbone, **layers, **widths, **fields)
    )


def timm_in_transformers(architecture, **arguments):
    config = tf.TimmWrapperConfig(architecture=architecture, num_labels=5, model_args=arguments)
    return tf.TimmWrapperForImageClassification(config)


# Vision transformers, with the names of the tokens before their patches.
VITS = {
    "vithub vit": (lambda: vithub.HubViTForImageClassification(vithub.HubViTConfig(**SIZES)), ["cls"]),
    "vithub vit registers": (
        lambda: vithub.HubViTForImageClassification(vithub.HubViTConfig(**SIZES, num_register_tokens=2)),
        ["cls", "register", "register"],
    ),
    "vithub vit mean": (
        lambda: vithub.HubViTForImageClassification(vithub.HubViTConfig(**SIZES, pool="mean", use_cls_token=False)),
        [],
    ),
    "vithub deit": (
        lambda: vithub.HubDeiTForImageClassification(vithub.HubDeiTConfig(**SIZES)),
        ["cls", "distillation"],
    ),
    "transformers vit": (lambda: tf.ViTForImageClassification(tf.ViTConfig(**SIZES)), ["cls"]),
    "transformers deit": (
        lambda: tf.DeiTForImageClassificationWithTeacher(tf.DeiTConfig(**SIZES)),
        ["cls", "distillation"],
    ),
    "transformers dinov2": (lambda: tf.Dinov2ForImageClassification(tf.Dinov2Config(**SIZES)), ["cls"]),
    "transformers dinov2 registers": (
        lambda: tf.Dinov2WithRegistersForImageClassification(
            tf.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)
        ),
        ["cls", "register", "register", "register"],
    ),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5, **TIMM), ["cls"]),
    "timm deit": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, **TIMM),
        ["cls", "distillation"],
    ),
    "timm vit registers": (
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5, reg_tokens=2, **TIMM),
        ["cls", "register", "register"],
    ),
    "timm vit wrapped": (lambda: timm_in_transformers("vit_tiny_patch16_224", **TIMM), ["cls"]),
    "torchvision vit": (
        lambda: torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5
        ),
        ["cls"],
    ),
}
DETECTORS = {
    "transformers detr": detr,
    "vithub detr": our_detr,
    "vithub detr anchors": lambda: our_detr(anchor_queries=True, focal_loss=True),
    "vithub detr on vit": lambda: our_detr(vithub.HubViTConfig(**SIZES)),
}
CNNS = {
    "transformers resnet": lambda: tf.ResNetForImageClassification(tf.ResNetConfig(**RESNET, num_labels=5)),
    "timm resnet": lambda: timm.create_model("test_resnet", num_classes=5),
    "timm efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "timm convnext wrapped": lambda: timm_in_transformers("test_convnext"),
    "torchvision resnet": lambda: torchvision.models.resnet18(num_classes=5),
}


def pytest_generate_tests(metafunc):
    """A test that takes `vit_name` or `model_name` runs on every vision transformer, or on every model;
    one that takes `attending_name` on every model with attention."""
    if "vit_name" in metafunc.fixturenames:
        metafunc.parametrize("vit_name", list(VITS))
    if "attending_name" in metafunc.fixturenames:
        metafunc.parametrize("attending_name", [*VITS, *DETECTORS])
    if "model_name" in metafunc.fixturenames:
        metafunc.parametrize("model_name", [*VITS, *CNNS, *DETECTORS])


@pytest.fixture
def build():
    """Makes a tiny model by name, random away from its start, in evaluation mode."""

    def make(name, seed=0):
        torch.manual_seed(seed)
        maker = {**DETECTORS, **CNNS}.get(name) or VITS[name][0]
        model = maker().eval()
        if name not in CNNS:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape) * 0.1)
        return model

    return make


@pytest.fixture
def pixels():
    """Makes random normalised images: `pixels(batch, height, width)`."""

    def make(batch=2, height=32, width=32, seed=1):
        return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))

    return make
