"""Checkpoints of other libraries in less usual layouts: without a pooler, no vision transformer, trained otherwise."""

import json
import logging

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform
from transformers import (
    DeiTConfig,
    DeiTModel,
    DetrConfig,
    DetrForObjectDetection,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)
from vithub.data.image_processing import build_image_processor
from vithub.hub.conversion.convert import convert
from vithub.hub.conversion.dinov3_configs import _ENTRY_POINTS
from vithub.hub.conversion.opening import open_checkpoint
from vithub.hub.conversion.timm_configs import (
    _CLIP,
    _DINOV2,
    _DISTILLED,
    _GATED,
    _PLAIN,
    _WITH_REGISTERS,
    config_from_timm,
    config_to_timm,
)
from vithub.hub.conversion.transformers_configs import InexpressibleError, config_from_transformers
from vithub.scripts.command_line import app, run
from vithub.training.optim.parameter_groups import parameter_groups

import vithub


def command(monkeypatch, capsys, *words):
    """Exit code of `vithub WORDS`, and all that it printed."""
    monkeypatch.setattr("sys.argv", ["vithub", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(run(app))
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out + printed.err


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 30, "patch_size": 6,
         "intermediate_size": 48}  # fmt: skip


@pytest.mark.parametrize(("native_class", "config"), [(ViTModel, ViTConfig(**SIZES)), (DeiTModel, DeiTConfig(**SIZES))])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_model_without_its_pooler_loads_and_goes_back(native_class, config, in_memory, randomised, tmp_path):
    """The layout of facebook/dino-vits16, whose configuration says nothing of it."""
    native = randomised(native_class(config, add_pooling_layer=False)).eval()
    native.save_pretrained(tmp_path / "native")
    conversion = open_checkpoint(native if in_memory else tmp_path / "native", verify=True)
    assert conversion.max_difference <= 1e-5
    assert conversion.model.pooler is None
    pixels = torch.randn(2, 3, 30, 30)
    with torch.no_grad():
        expected = native(pixels).last_hidden_state
        torch.testing.assert_close(conversion.model(pixels).last_hidden_state, expected)
        conversion.model.save_pretrained(tmp_path / "ours")
        convert(tmp_path / "ours", tmp_path / "back", to="transformers")
        back = native_class.from_pretrained(tmp_path / "back", add_pooling_layer=False).eval()
        torch.testing.assert_close(back(pixels).last_hidden_state, expected)


@pytest.mark.parametrize("architecture", ["resnet10t", "mobilenetv3_small_050"])
def test_a_cnn_is_refused_by_name(architecture, tmp_path, monkeypatch, capsys):
    model = timm.create_model(architecture)
    state = dict(sorted(model.state_dict().items(), key=lambda item: item[1].is_floating_point()))  # counters first
    save_file(state, tmp_path / "model.safetensors")
    content = {"architecture": architecture, "num_classes": 1000, "pretrained_cfg": {"num_classes": 1000}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InexpressibleError, match=f"timm's {architecture} of the class {type(model).__name__}"):
        vithub.load(tmp_path)
    code, printed = command(monkeypatch, capsys, "convert", tmp_path, tmp_path / "ours")
    assert code == 1
    assert f"timm's {architecture} of the class" in printed
    assert not (tmp_path / "ours").exists()


def test_a_conversion_that_compared_nothing_says_so(tiny, tmp_path, monkeypatch, capsys):
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path / "one")
    code, printed = command(monkeypatch, capsys, "convert", tmp_path / "one", tmp_path / "two")
    assert code == 0, printed
    assert "no outputs were compared" in printed
    assert "0.00" not in printed
    assert convert(tmp_path / "one", tmp_path / "three").max_difference is None
    compared = convert(tmp_path / "one", tmp_path / "four", to="timm")
    assert compared.max_difference is not None


DINOV3_NAMES = [name for sizes in _ENTRY_POINTS.values() for name in sizes]


@pytest.mark.parametrize("name", [*_PLAIN, *_CLIP, *_DINOV2, *_WITH_REGISTERS, *_GATED, *_DISTILLED, *DINOV3_NAMES])
def test_the_nearest_architecture_of_a_timm_model_is_itself(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    config = config_from_timm(model)
    task = "image-classification" if model.num_classes else "backbone"
    assert config_to_timm(config, task)["architecture"] == name


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"hidden_size": 200, "num_attention_heads": 4}, "vit_tiny_patch16_224"),
        ({"hidden_size": 384, "num_attention_heads": 6, "image_size": 384}, "vit_small_patch16_384"),
        ({"hidden_size": 768, "num_attention_heads": 12, "image_size": 256, "patch_size": 32}, "vit_base_patch32_224"),
    ],
)
def test_other_sizes_have_the_nearest_architecture(fields, expected):
    assert config_to_timm(vithub.HubViTConfig(**fields), "image-classification")["architecture"] == expected


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_detr_with_auxiliary_losses_says_that_it_computes_something_else(auxiliary, tiny_detr, tmp_path, caplog):
    config = tiny_detr()
    names = ("d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
             "encoder_ffn_dim", "decoder_ffn_dim", "num_queries")  # fmt: skip
    torch.manual_seed(0)
    native = DetrForObjectDetection(
        DetrConfig(backbone_config=config.backbone_config.to_dict(), num_labels=3, auxiliary_loss=auxiliary,
                   **{name: getattr(config, name) for name in names})
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in native.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    native.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        conversion = open_checkpoint(tmp_path, verify=True)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        same = torch.allclose(conversion.model(pixels).logits, native(pixels).logits, atol=1e-4)
    told = [record for record in caplog.records if "auxiliary_loss=True" in record.getMessage()]
    assert same is not auxiliary
    assert bool(told) is auxiliary
    assert any("auxiliary_loss=True" in note for note in conversion.notes) is auxiliary
    assert conversion.max_difference < 1e-4
    assert native.config.auxiliary_loss is auxiliary
    notes = vithub.convert(tmp_path, tmp_path / "ours").notes
    said = [note for note in notes if "transformers computes another function" in note]
    assert len(said) == auxiliary
    assert all("passes it on unnormalised and normalises only what the heads read" in note for note in said)


def gradient(height, width):
    """An image whose values tell the place of each pixel."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows % 256, columns % 256, (rows // 256) * 16 + columns // 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("size", [30, 32, 56, 64])
@pytest.mark.parametrize("extra", range(9))
def test_the_crop_is_timms_to_the_pixel_or_the_conversion_says_by_how_much(size, extra):
    """Sizes at which nothing is resized, so that what is cut is told exactly."""
    height, width = size + extra, size + extra + 7
    ratio = size / (size + extra)
    picture = Image.fromarray(gradient(height, width))
    theirs = create_transform(input_size=(3, size, size), crop_pct=ratio, is_training=False, mean=(0, 0, 0),
                              std=(1, 1, 1), interpolation="nearest")  # fmt: skip
    ours = build_image_processor((size, size), crop_ratio=ratio, mean=(0, 0, 0), std=(1, 1, 1), interpolation="nearest",
                                 backend="pil")  # fmt: skip
    cut = [theirs(picture), ours(picture, return_tensors="pt")["pixel_values"][0]]
    places = [[round(255 * float(pixels[channel, 0, 0])) for channel in (0, 1)] for pixels in cut]
    spare = (height - size, width - size)
    assert places[0] == [round(part / 2) for part in spare]
    assert places[1] == [place - (part % 4 == 3) for place, part in zip(places[0], spare, strict=True)]


def test_a_pool_that_a_native_class_lacks_is_refused_with_what_to_do(tiny, tmp_path):
    config = tiny(pool="mean")
    vithub.HubViTForImageClassification(config).save_pretrained(tmp_path / "run")
    with pytest.raises(InexpressibleError, match=r"pool='mean' \(only 'cls'\); .*values=.'model.fields.pool': 'cls'"):
        convert(tmp_path / "run", tmp_path / "native", to="transformers")
    config.pool = "cls"
    vithub.HubViTForImageClassification(config).save_pretrained(tmp_path / "other")
    assert convert(tmp_path / "other", tmp_path / "native", to="transformers").architecture.startswith("ViT")


DINOV3_OF_TIMM = {
    "bare": ("vit_small_patch16_dinov3", {"num_classes": 0, "global_pool": "token"}),
    "classifier on CLS": ("vit_small_patch16_dinov3_qkvb", {"global_pool": "token"}),
    "classifier on the mean": ("vit_small_patch16_dinov3", {"rope_temperature": 50}),
    "gated, rectangles": (
        "vit_small_plus_patch16_dinov3_qkvb", {"img_size": (30, 28), "patch_size": (5, 7), "rope_rescale_coords": 2},
    ),
    "normalised queries and keys": ("vit_small_patch16_dinov3", {"qk_norm": True, "use_fc_norm": True}),
}  # fmt: skip


@pytest.mark.parametrize("layout", DINOV3_OF_TIMM)
def test_dinov3_of_timm_goes_there_and_back_exactly(layout, randomised, tmp_path):
    name, arguments = DINOV3_OF_TIMM[layout]
    sizes = {"img_size": 30, "patch_size": 6, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 7}
    model = randomised(timm.create_model(name, **{**sizes, **arguments}))
    there = convert(model, tmp_path / "ours")
    back = convert(tmp_path / "ours", tmp_path / "back", to="timm")
    assert len(there.differences) == 8
    assert max(there.max_difference, back.max_difference) <= 1e-5
    assert [part in back.architecture for part in ("qkvb", "plus")] == [part in name for part in ("qkvb", "plus")]
    stored = load_file(tmp_path / "back" / "model.safetensors")
    assert stored.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, stored[tensor_name]) for tensor_name, tensor in model.state_dict().items())
    again = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True).eval()
    for place in ("temperature", "shift_coords", "jitter_coords", "rescale_coords"):
        assert getattr(again.rope, place) == getattr(model.rope, place)
    assert config_from_timm(again).to_dict() == config_from_timm(model).to_dict()


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"layer_norm_eps": 1e-6}, r"layer_norm_eps=1e-06 \(only 1e-05\)"),
        ({"key_bias": True}, "a bias of the keys"),
        ({"layer_scale_init_value": None}, "needs LayerScale"),
        ({"pool": "cls+mean"}, r"pool='cls\+mean'"),
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
    ],
)
def test_what_timms_dinov3_lacks_is_named(fields, feature, tiny):
    rotary = {"position_embedding_type": "rotary", "key_bias": False, "layer_scale_init_value": 1e-5}
    with pytest.raises(InexpressibleError, match=f"timm cannot express this model: .*{feature}"):
        config_to_timm(tiny(**rotary | {"layer_norm_eps": 1e-5} | fields), "image-classification")


@pytest.mark.parametrize(
    ("name", "arguments", "feature"),
    [
        ("eva02_tiny_patch14_224", {}, "positions other than DINOv3's rotary ones"),
        ("vit_small_patch16_dinov3", {"rope_rotate_half": False}, "interleaved rotation"),
        ("vit_small_patch16_dinov3", {"use_abs_pos_emb": True}, "position embeddings besides the rotary ones"),
        ("vit_small_patch16_dinov3", {"global_pool": "map"}, "the pool 'map'"),
        ("vit_small_patch16_dinov3", {"rope_grid_indexing": "xy"}, "rotary coordinates of another kind"),
    ],
)
def test_what_a_model_like_dinov3_has_besides_is_named(name, arguments, feature):
    model = timm.create_model(name, img_size=28, embed_dim=32, depth=1, num_heads=2, **arguments)
    with pytest.raises(InexpressibleError, match=feature):
        config_from_timm(model)


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"query_bias": False}, "query_bias=False with value_bias=True"),
        ({"mlp_bias": False}, "mlp_bias=False"),
        ({"proj_bias": False}, "proj_bias=False"),
        ({"use_gated_mlp": True}, "hidden_act='gelu' in a gated MLP"),
    ],
)
def test_what_a_dinov3_of_transformers_has_besides_is_named(fields, feature):
    with pytest.raises(InexpressibleError, match=feature):
        config_from_transformers(DINOv3ViTConfig(**SIZES | fields), "DINOv3ViTModel")


def test_dinov3_becomes_a_classifier_and_only_its_encoder_goes_back(randomised, tmp_path):
    native = randomised(DINOv3ViTModel(DINOv3ViTConfig(**SIZES | {"num_register_tokens": 2}))).eval()
    native.save_pretrained(tmp_path / "native")
    model = vithub.load(tmp_path / "native", task="image-classification", labels=["a", "b"])
    assert model(torch.randn(1, 3, 30, 30)).logits.shape == (1, 2)
    model.save_pretrained(tmp_path / "classifier")
    with pytest.raises(InexpressibleError, match="a head for image-classification"):
        convert(tmp_path / "classifier", tmp_path / "back", to="transformers")
    convert(tmp_path / "classifier", tmp_path / "back", to="transformers", task="backbone")
    back = DINOv3ViTModel.from_pretrained(tmp_path / "back").eval()
    pixels = torch.randn(2, 3, 24, 36)
    torch.testing.assert_close(back(pixels).last_hidden_state, native(pixels).last_hidden_state)


@pytest.mark.parametrize("native_class", [ViTMAEModel, ViTMAEForPreTraining])
def test_the_encoder_of_a_masked_autoencoder_comes_in(native_class, randomised, tmp_path):
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
               "decoder_intermediate_size": 16}  # fmt: skip
    native = randomised(native_class(ViTMAEConfig(**SIZES, **decoder)))
    native.save_pretrained(tmp_path / "native")
    for source in (native, tmp_path / "native"):
        conversion = open_checkpoint(source, verify=True)
        assert len(conversion.differences) == 8
        assert conversion.max_difference <= 1e-5
    assert any(name.startswith("decoder.") for name in conversion.dropped) == (native_class is ViTMAEForPreTraining)
    report = convert(tmp_path / "native", tmp_path / "back", to="transformers")
    assert report.architecture == "ViTModel"


def test_the_pooled_state_is_that_of_transformers_siglip(randomised):
    native = randomised(SiglipVisionModel(SiglipVisionConfig(**SIZES)))
    ours = vithub.load(native)
    pixels = torch.randn(2, 3, 30, 30)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels).pooler_output, native(pixels).pooler_output)
    headless = randomised(SiglipVisionModel(SiglipVisionConfig(vision_use_head=False, **SIZES)))
    assert vithub.load(headless, verify=True).config.pool == "mean"


def test_siglip_becomes_a_classifier_of_its_pooled_state(randomised):
    model = vithub.load(
        randomised(SiglipVisionModel(SiglipVisionConfig(**SIZES))), task="image-classification", labels=3
    )
    outputs = model(torch.randn(2, 3, 30, 30))
    assert outputs.logits.shape == (2, 3)
    groups = {g["name"]: g for g in parameter_groups(model, 1e-3, 0.1)}
    without = [g for name, g in groups.items() if name.endswith("decay 0")]
    assert any(p is model.vit.pooling.probe_token for g in without for p in g["params"])
    for method in ("attention", "rollout", "relevance"):
        explanation = vithub.explain(model, torch.randn(1, 3, 30, 30), method=method)
        assert explanation.grid.shape == (1, 5, 5)
        assert explanation.grid.isfinite().all()
        assert explanation.grid.std() > 0, method  # no image patch is like all others


@pytest.mark.parametrize("arguments", [{"num_heads": 2, "act_layer": "gelu_tanh"}, {"mlp_ratio": 2}])
def test_attention_pooling_of_timm_comes_in_exactly(arguments, randomised):
    sizes = {"img_size": 30, "patch_size": 6, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 7}
    model = randomised(timm.create_model("vit_base_patch16_siglip_224", **{**sizes, **arguments}))
    assert open_checkpoint(model, verify=True).max_difference <= 1e-5
    model.attn_pool.pool = "avg"
    with pytest.raises(InexpressibleError, match="attention pooling of another kind"):
        config_from_timm(model)
