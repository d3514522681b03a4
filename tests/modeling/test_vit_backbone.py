"""Feature maps of our backbones against those of transformers, and what `AutoBackbone` asks of them."""

import pytest
import torch
from transformers import (
    AutoBackbone,
    DetrConfig,
    DetrForObjectDetection,
    Dinov2Backbone,
    Dinov2Config,
    Dinov2WithRegistersBackbone,
    Dinov2WithRegistersConfig,
    DINOv3ViTBackbone,
    DINOv3ViTConfig,
    ViTConfig,
    ViTModel,
)
from vithub.hub.conversion.convert import convert
from vithub.hub.conversion.opening import open_checkpoint
from vithub.hub.conversion.transformers_configs import InexpressibleError
from vithub.modeling.detr_backbone import HubDetrBackbone

import vithub

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 30, "patch_size": 6}
NATIVE = {
    "dinov2": (Dinov2Backbone, Dinov2Config(out_indices=[0, 2, 3], **SIZES)),
    "dinov2, no norm, all tokens": (
        Dinov2Backbone, Dinov2Config(out_indices=[1], apply_layernorm=False, reshape_hidden_states=False, **SIZES),
    ),
    "registers": (
        Dinov2WithRegistersBackbone, Dinov2WithRegistersConfig(out_features=["stage1"], use_swiglu_ffn=True, **SIZES),
    ),
    "dinov3": (
        DINOv3ViTBackbone,
        DINOv3ViTConfig(out_features=["stage1", "stage3"], num_register_tokens=2, intermediate_size=48, **SIZES),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", NATIVE)
def test_maps_are_those_of_transformers_there_and_back(layout, randomised, tmp_path):
    native_class, config = NATIVE[layout]
    native = randomised(native_class(config))
    native.save_pretrained(tmp_path / "native")
    conversion = open_checkpoint(tmp_path / "native", verify=True)
    assert len(conversion.differences) == 8  # two sizes, one not square
    assert conversion.max_difference <= 1e-5
    ours = conversion.model
    assert type(ours) is vithub.HubViTBackbone
    assert ours.out_features == native.out_features
    assert ours.channels == native.channels
    pixels = torch.randn(2, 3, 24, 36)
    with torch.no_grad():
        expected, got = native(pixels, output_hidden_states=True), ours(pixels, output_hidden_states=True)
    for one, other in zip((*expected.feature_maps, *expected.hidden_states), (*got.feature_maps, *got.hidden_states),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    ours.save_pretrained(tmp_path / "ours")
    report = convert(tmp_path / "ours", tmp_path / "back", to="transformers")
    assert report.architecture == native_class.__name__
    again = native_class.from_pretrained(tmp_path / "back").eval()
    assert again.out_indices == native.out_indices
    torch.testing.assert_close(again(pixels).feature_maps, expected.feature_maps)


def test_maps_are_the_normalised_hidden_states_of_a_vit(randomised):
    native = randomised(ViTModel(ViTConfig(intermediate_size=48, **SIZES)))
    ours = vithub.load(native, task="feature-maps")
    ours.out_indices = [0, 1, -1]
    assert ours.out_features == ["stem", "stage1", "stage3"]
    pixels = torch.randn(2, 3, 30, 30)
    with torch.no_grad():
        states = native(pixels, output_hidden_states=True).hidden_states
        maps = ours(pixels).feature_maps
        for number, found in zip((0, 1, 3), maps, strict=True):
            patches = native.layernorm(states[number])[:, 1:]
            torch.testing.assert_close(found, patches.transpose(1, 2).reshape(2, 32, 5, 5))


@pytest.mark.parametrize("saved", ["HubViTForImageClassification", "HubViTModel", "HubViTBackbone"])
def test_a_folder_of_any_kind_is_a_backbone(saved, tiny, randomised, tmp_path):
    config = tiny(pool="map", num_register_tokens=2, position_embedding_type="rotary")
    model = randomised(getattr(vithub, saved)(config))
    model.save_pretrained(tmp_path)
    loaded, info = vithub.HubViTBackbone.from_pretrained(tmp_path, out_features=["stage1"], output_loading_info=True)
    assert not any(info.values())
    assert loaded.out_indices == [1]
    pixels = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected = model.forward_intermediates(pixels, [0], norm=True, intermediates_only=True)
        torch.testing.assert_close(list(loaded.eval()(pixels).feature_maps), expected)
    assert vithub.load(tmp_path, task="feature-maps").out_indices == [2]


def test_layers_after_the_last_map_are_not_computed(tiny, randomised):
    backbone = randomised(vithub.HubDeiTBackbone(tiny(vithub.HubDeiTConfig, out_indices=[1])))
    pixels, ran = torch.randn(1, 3, 32, 32), []
    for number, layer in enumerate(backbone.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    maps = backbone(pixels).feature_maps
    assert ran == [1]
    assert len(backbone(pixels, output_hidden_states=True).hidden_states) == 3
    assert len(backbone(pixels, output_attentions=True).attentions) == 2
    torch.testing.assert_close(backbone(pixels, return_dict=False)[0], maps)


def test_auto_backbone_builds_ours_and_a_detr_of_transformers_learns_on_it(tiny):
    torch.manual_seed(0)
    config = tiny(out_indices=[2], num_register_tokens=1, use_mask_token=True)
    assert type(AutoBackbone.from_config(config)) is vithub.HubViTBackbone
    assert type(AutoBackbone.from_config(tiny(vithub.HubDeiTConfig))) is vithub.HubDeiTBackbone
    detr = DetrForObjectDetection(
        DetrConfig(backbone_config=config, d_model=32, encoder_layers=1, decoder_layers=1, num_queries=4, num_labels=2,
                   encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32)
    )  # fmt: skip
    boxes = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}]
    detr.train()(torch.randn(1, 3, 64, 48), labels=boxes).loss.backward()
    assert detr.model.backbone.model.embeddings.cls_token.grad.abs().sum() > 0


@pytest.mark.parametrize("config_class", [vithub.HubViTConfig, vithub.HubDeiTConfig])
def test_our_detr_reads_the_last_map_that_its_backbone_names(config_class, tiny, tiny_detr, randomised):
    config = tiny(config_class, num_hidden_layers=3, out_indices=[0, 2])
    detector = HubDetrBackbone(tiny_detr(backbone_config=config.to_dict(), frozen_stages=2))
    assert len(detector.model.layers) == 2
    assert not any(p.requires_grad for p in detector.model.layers.parameters())
    backbone = randomised(AutoBackbone.from_config(config))
    detector.model.load_state_dict(backbone.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(detector.eval()(pixels, None)[0], backbone(pixels).feature_maps[-1])
        assert detector(torch.randn(1, 3, 30, 35), None)[0].shape[-2:] == (4, 5)
    with pytest.raises(ValueError, match="`reshape_hidden_states` of `backbone_config` must be True"):
        tiny_detr(backbone_config=tiny(config_class, reshape_hidden_states=False).to_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"out_indices": [3]}, "`out_indices` must name stages from -3 to 2, got 3"),
        ({"out_indices": [True]}, "`out_indices` must name stages from -3 to 2, got True"),
        ({"out_indices": [2, 1]}, r"`out_indices` must name stages in their order and each once, got \[2, 1\]"),
        ({"out_indices": 1}, "`out_indices` must be a list of at least one stage, got 1"),
        ({"out_features": ["layer1"]}, "`out_features` must name stages from 'stem' to 'stage2', got 'layer1'"),
        ({"out_features": ["stem"], "out_indices": [1]}, "must name the same stages"),
        ({"out_index": [1]}, "did you mean `out_indices`"),
        ({"apply_layernorm": 1}, "`apply_layernorm` must be True or False, got 1"),
    ],
)
def test_maps_that_do_not_exist_are_refused(fields, message, tiny):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


def test_a_configuration_names_maps_only_where_they_were_set(tiny):
    assert not {"out_indices", "out_features", "stage_names"} & set(tiny().to_dict())
    config = vithub.HubViTConfig.from_dict(tiny(out_features=["stem"]).to_dict(), out_indices=[-1])
    assert (config.out_features, config.out_indices) == (["stage2"], [2])
    config.num_hidden_layers = 1
    with pytest.raises(ValueError, match="must name stages from"):
        config.check()


def test_maps_are_refused_where_the_target_has_no_class_for_them(tiny, tmp_path):
    vithub.HubViTBackbone(tiny()).save_pretrained(tmp_path / "ours")
    for target in ("transformers", "timm"):
        with pytest.raises(InexpressibleError, match=r"feature maps \(convert with task='backbone'\)"):
            convert(tmp_path / "ours", tmp_path / "out", to=target)
    assert convert(tmp_path / "ours", tmp_path / "out", to="timm", task="backbone").max_difference < 1e-5
