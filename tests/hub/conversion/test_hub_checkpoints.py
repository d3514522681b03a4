"""Checkpoints as they lie on the Hub: stored configurations, shards, bfloat16, names of other versions, other heads.

The files in `stored_configs` are byte for byte those of the Hub: public projects that pin what they download state the
SHA-256 (of vit-base-patch16-224-in21k the Git blob's SHA-1) below. Those in `described_configs`, of ids whose digest is
not public, state what decides the computation, from papers and conversion scripts. Each model is made with random
weights, in the layout of its configuration, at another width and depth.
"""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BeitConfig,
    BeitForImageClassification,
    DeiTConfig,
    DeiTModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipTextConfig,
    SiglipVisionConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from vithub.hub.conversion.convert import convert
from vithub.hub.conversion.model_classes import head_of, model_class_for
from vithub.hub.conversion.opening import is_convertible, open_checkpoint
from vithub.hub.conversion.siglip_configs import vision_tower
from vithub.hub.conversion.transformers_configs import InexpressibleError, config_from_transformers

import vithub

STORED = {
    "facebook/dinov2-small": "1809f83e3bdb1609a501a610ad4a742f4fd8ae44d72ca4aa0df52d1f2ac8628d",
    "facebook/dinov2-base": "f7ff4cfa73d2f70647dbf6950541ad25d73082d54c2e7e9bded160c7656b2a70",
    "facebook/dinov2-large": "12df51c069a2dc1305e34ba71ef58bc2407ea553b75f4722a1715c1bce3bbed0",
    "facebook/dinov2-giant": "15d2e68b709674c0eb9bb5cc8b73e57ebe9a169a425bef224f46ae10053806a2",
    "facebook/dinov3-vits16-pretrain-lvd1689m": "9481247be9f95a134a5599402b4bfc838eecdf9a7fffbf4debd1c70ec213898b",
    "facebook/dinov3-vits16plus-pretrain-lvd1689m": "6f4ac67fea1761fe684d2a7db3139bab2d0dfdf94c05063d5992717c4c1da0ac",
    "facebook/dinov3-vitb16-pretrain-lvd1689m": "3c9cc418f4622fd6d5587fd142b6f3cba0ba6a69f67ced907d8b7f26118451ec",
    "facebook/dinov3-vitl16-pretrain-lvd1689m": "135ecd23e34a70b6fbed8b083fdecb319b7e3a54e3d849258bbe4ddcf1783bb5",
    "facebook/dinov3-vith16plus-pretrain-lvd1689m": "35770e98e425c9383534bcbfa7f3b7a3cb1d943f6d26a37d7d19fea0735eab57",
    "facebook/dinov3-vit7b16-pretrain-lvd1689m": "b317786dd342ad8f51ce8246f39754ba648c7d375ad75d7b415507fe58d74ce6",
    "facebook/vit-mae-base": "1f7a507e1f7f63a262c5500b86470c3b22ff1a9e42de81bbba27105396572dae",
    "google/siglip-so400m-patch14-384": "adc04928d8fd19a61822584fe0cf2e813e5ebac17f3e49fb1ea096860ae6457b",
    "google/vit-base-patch16-224-in21k": "254071bbf72dd0fd535b61768d9cd87adcb776f4",
}
DESCRIBED = {
    "google/vit-base-patch16-224": "HubViTForImageClassification",
    "facebook/deit-small-patch16-224": "HubViTForImageClassification",  # a plain ViT, and stored as one
    "facebook/deit-base-distilled-patch16-224": "HubDeiTForImageClassification",
    "facebook/dino-vits16": "HubViTModel",
    "facebook/ijepa_vith14_1k": "HubViTModel",
    "google/siglip-base-patch16-224": "HubViTModel",
}
REFUSED = "microsoft/beit-base-patch16-224"
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 64,
    "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}  # fmt: skip
WIDTHS = {
    name: SMALL[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
}
NO_TEXT_TOKENS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}


def stored_text(model_id):
    name = model_id.replace("/", "--")
    folder = "stored_configs" if model_id in STORED else "described_configs"
    return (Path(__file__).with_name(folder) / f"{name}.json").read_text(encoding="utf-8")


def smaller(config):
    """The same configuration at another width and depth, of 4 x 4 patches."""
    small = {name: SMALL.get(name, value) for name, value in config.items()}
    for tower in ("vision_config", "text_config"):
        if tower in small:
            small[tower] = smaller(small[tower]) | (
                {"vocab_size": 64, **NO_TEXT_TOKENS} if tower == "text_config" else {}
            )
    if "patch_size" in small:
        small["image_size"] = 4 * small["patch_size"] + config["image_size"] % small["patch_size"]
    return small


@pytest.mark.parametrize("model_id", STORED)
def test_the_stored_configuration_is_that_of_the_hub(model_id):
    content = stored_text(model_id).encode()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    assert STORED[model_id] in (hashlib.sha256(content).hexdigest(), blob)


@pytest.mark.parametrize("model_id", [*STORED, *DESCRIBED])
def test_a_checkpoint_of_this_layout_loads_and_computes_the_same(model_id, randomised, tmp_path):
    """Shards, the configuration as old versions of transformers wrote it, and bfloat16 for half of them."""
    config = smaller(json.loads(stored_text(model_id)))
    options = {"add_pooling_layer": False} if model_id.startswith(("facebook/dino-", "facebook/ijepa")) else {}
    native = randomised(getattr(transformers, config["architectures"][0])(AutoConfig.for_model(**config), **options))
    if len(model_id) % 2:
        native.to(torch.bfloat16)
    native.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert is_convertible(tmp_path)
    conversion = open_checkpoint(tmp_path, verify=True)
    assert type(conversion.model).__name__ == DESCRIBED.get(model_id, "HubViTModel")
    assert conversion.max_difference <= 1e-5
    assert len(conversion.differences) == 8
    assert conversion.model.dtype == native.dtype
    left_out = {"facebook/vit-mae-base": ("decoder",)}
    left_out |= dict.fromkeys([name for name in (*STORED, *DESCRIBED) if "siglip" in name], ("text_model.", "logit_"))
    assert bool(conversion.dropped) == (model_id in left_out)
    assert all(name.startswith(left_out[model_id]) for name in conversion.dropped)
    rest = any("no whole patches" in note for note in conversion.notes)
    assert rest == (model_id == "google/siglip-so400m-patch14-384")  # 27 patches of 14 pixels, and 6 pixels
    assert conversion.image_processor(torch.zeros(3, 90, 90), return_tensors="pt")["pixel_values"].shape[-2:] == (
        conversion.model.config.image_hw
    )


def full_size(model_id):
    """Our model of an id without memory for its weights, from its stored configuration."""
    config = json.loads(stored_text(model_id))
    if config["model_type"] == "siglip":
        config, _, _ = vision_tower(config, {})
    architecture = config["architectures"][0]
    pooler = not model_id.startswith("facebook/dino-")
    ours = config_from_transformers(AutoConfig.for_model(**config), architecture, has_pooler=pooler)
    with torch.device("meta"):
        return model_class_for(type(ours), head_of(architecture))(ours)


def test_the_table_of_the_documents_says_what_happens():
    text = Path(__file__).parents[3].joinpath("docs/checkpoints.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `((?:facebook|google|microsoft)/[\w.-]+)` \| (.+?) \|$", text, re.MULTILINE))
    assert rows.keys() == {*STORED, *DESCRIBED, REFUSED}
    assert "attention bias" in rows.pop(REFUSED)
    for model_id, row in rows.items():
        model = full_size(model_id)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        config = model.config
        stated = [part.strip() for part in row.split("|")]
        assert stated[:3] == [
            f"`{type(model).__name__}`",
            f"{millions:,.1f} M",
            f"{config.image_size} / {config.patch_size}",
        ]


def headed(kind, randomised):
    """A ViT whose file holds heads that the class in its configuration does not have, and the names of those."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 30, "patch_size": 6,
             "intermediate_size": 48}  # fmt: skip
    if kind == "ViTModel from a classifier":
        classifier = ViTForImageClassification(ViTConfig(num_labels=3, **sizes))
        return randomised(ViTModel(ViTConfig(**sizes), add_pooling_layer=False)), {
            name: tensor for name, tensor in classifier.state_dict().items() if name.startswith("classifier.")
        }
    if kind == "DeiTModel from a teacher's student":
        extra = {f"{head}.{part}": torch.zeros(3) for head in ("cls_classifier", "distillation_classifier")
                 for part in ("weight", "bias")}  # fmt: skip
        return randomised(DeiTModel(DeiTConfig(**sizes))), extra
    extra = {"vit.pooler.dense.weight": torch.zeros(32, 32), "vit.pooler.dense.bias": torch.zeros(32)}
    extra["vit.embeddings.mask_token"] = torch.zeros(1, 1, 32)
    return randomised(ViTForImageClassification(ViTConfig(**sizes))), extra


@pytest.mark.parametrize(
    "kind", ["ViTModel from a classifier", "DeiTModel from a teacher's student", "classifier with a pooler"]
)
def test_heads_that_the_class_does_not_have_are_left_out_and_named(kind, randomised, tmp_path):
    native, extra = headed(kind, randomised)
    native.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(state | extra, tmp_path / "model.safetensors", metadata={"format": "pt"})
    conversion = open_checkpoint(tmp_path, verify=True)
    assert conversion.max_difference <= 1e-5
    assert sorted(conversion.dropped) == sorted(extra)
    assert sum(t.numel() for t in conversion.model.state_dict().values()) == sum(t.numel() for t in state.values())


@pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2", "dinov2_with_registers", "ijepa"])
def test_names_in_memory_of_later_versions_are_known_too(model_type, randomised, tmp_path):
    """A file of `state_dict()`, which transformers from 5.20 names otherwise than what it saves."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 30, "patch_size": 6}
    config = AutoConfig.for_model(model_type, use_swiglu_ffn=model_type == "dinov2", **sizes)
    native = randomised(transformers.AutoModel.from_config(config))
    native.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    expected = vithub.load(tmp_path).state_dict()
    save_file(dict(native.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert saved.keys() != native.state_dict().keys()
    loaded = open_checkpoint(tmp_path, verify=True)
    assert loaded.max_difference <= 1e-5
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


def test_a_classifier_of_siglip_keeps_its_labels(randomised, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = SiglipConfig(
        vision_config=SiglipVisionConfig(image_size=30, patch_size=6, **sizes),
        text_config=SiglipTextConfig(vocab_size=50, **NO_TEXT_TOKENS, **sizes), id2label={0: "ant", 1: "bee", 2: "cat"},
    )  # fmt: skip
    native = randomised(SiglipForImageClassification(config))
    native.save_pretrained(tmp_path / "native")
    conversion = open_checkpoint(tmp_path / "native", verify=True)
    assert conversion.max_difference <= 1e-5
    assert conversion.model.config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert all(name.startswith("vision_model.head.") for name in conversion.dropped)
    report = convert(tmp_path / "native", tmp_path / "back", to="transformers")
    assert report.max_difference <= 1e-5


@pytest.mark.parametrize(
    ("model_class", "config", "feature"),
    [
        (Siglip2VisionModel, Siglip2VisionConfig(num_patches=16, **WIDTHS), "NaFlex"),
        (
            BeitForImageClassification,
            BeitConfig(**smaller(json.loads(stored_text(REFUSED)))),
            "attention bias",
        ),
    ],
)
def test_what_is_no_vit_of_ours_is_refused_by_feature_in_one_line(model_class, config, feature, tmp_path):
    native = model_class(config)
    native.save_pretrained(tmp_path)
    for source in (native, tmp_path):
        with pytest.raises(InexpressibleError, match=f"^vithub cannot express this model: [^\n]*{feature}[^\n]*$"):
            vithub.load(source)
