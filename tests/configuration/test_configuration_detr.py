"""What a DETR configuration accepts, derives and refuses."""

import pytest
from transformers import AutoConfig, ResNetConfig

import vithub


def test_defaults_are_the_published_recipe():
    config = vithub.HubDetrConfig()
    assert config.auxiliary_loss
    assert (config.encoder_layers, config.decoder_layers, config.d_model, config.num_queries) == (6, 6, 256, 100)
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.1, 0.1, 0.1)
    assert (config.class_cost, config.bbox_cost, config.giou_cost, config.eos_coefficient) == (1, 5, 2, 0.1)
    assert (config.bbox_loss_coefficient, config.giou_loss_coefficient) == (5, 2)
    assert not any([config.dilation, config.anchor_queries, config.denoising_queries, config.focal_loss])
    assert isinstance(config.backbone_config, ResNetConfig)
    assert config.backbone_config.out_features == ["stage4"]


@pytest.mark.parametrize("backbone", ["resnet", "timm", "vit"])
def test_round_trip_keeps_every_field_and_the_kind_of_backbone(tiny_detr, tiny, backbone, tmp_path):
    given = {
        "resnet": ResNetConfig(out_features=["stage3"]),
        "timm": {"model_type": "timm_backbone", "backbone": "resnet18", "out_indices": [4]},
        "vit": tiny(num_register_tokens=2),
    }[backbone]
    config = tiny_detr(backbone_config=given, anchor_queries=True, denoising_queries=20, focal_loss=True)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is vithub.HubDetrConfig
    assert type(again.backbone_config) is type(config.backbone_config)
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict()


def test_no_object_is_a_column_of_the_cross_entropy_only(tiny_detr):
    assert tiny_detr(num_labels=7).num_class_logits == 8
    assert tiny_detr(num_labels=7, focal_loss=True).num_class_logits == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_queries": 0}, "`num_queries` must be a whole number of at least 1, got 0"),
        ({"d_model": 30}, "`d_model` must be a multiple of 4, got 30"),
        ({"encoder_attention_heads": 3}, "`d_model` must be a multiple of `encoder_attention_heads`, got 256 and 3"),
        ({"decoder_attention_heads": 7}, "`d_model` must be a multiple of `decoder_attention_heads`, got 256 and 7"),
        ({"dropout": 1.0}, r"`dropout` must lie in \[0, 1\), got 1.0"),
        ({"denoising_queries": 10}, "they need `anchor_queries=True`, got 10"),
        ({"class_cost": 0, "bbox_cost": 0, "giou_cost": 0}, "not all 0"),
        ({"giou_loss_coefficient": -1}, "`giou_loss_coefficient` must be at least 0"),
        ({"frozen_stages": -1}, "`frozen_stages` must be a whole number of at least 0"),
        ({"backbone_config": {"depths": [1]}}, "with its `model_type`"),
        ({"backbone_config": {"model_type": "nothing"}}, "names the model type 'nothing'"),
        ({"auxilary_loss": True}, "did you mean `auxiliary_loss`"),
        ({"id2label": {1: "a", 2: "b"}}, "`id2label` must map 0..1 to names"),
    ],
)
def test_wrong_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        vithub.HubDetrConfig(**fields)


@pytest.mark.parametrize(
    "field",
    ["num_queries", "d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim"],
)
def test_a_size_beyond_any_model_is_refused(field, tiny_detr):
    with pytest.raises(ValueError, match=rf"`{field}` must be at most .*, got {8 * 10**9}"):
        tiny_detr(**{field: 8 * 10**9})
