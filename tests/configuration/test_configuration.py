import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import calculate_drop_path_rates
from transformers import AutoConfig

from vithub import HubDeiTConfig, HubDetrConfig, HubViTConfig, HubViTForImageClassification, HubViTModel

# Millions of parameters with 1000 classes at 224 pixels (DeiT, table 1; ViT, table 1).
PUBLISHED = {"Ti": 5.7, "S": 22.1, "B": 86.6, "L": 304.3, "H": 632.0}
# Millions of parameters of the encoder (DINOv3, table 2, with one more digit from the published files).
DINOV3 = {"S": 21.6, "S+": 28.7, "B": 85.7, "L": 303.1, "H+": 840.6, "7B": 6716.0}


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_presets_have_the_published_number_of_parameters(name, millions):
    import torch

    with torch.device("meta"):
        model = HubViTForImageClassification(HubViTConfig.preset(name, num_labels=1000))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(("name", "millions"), DINOV3.items())
def test_the_sizes_of_dinov3_have_as_many_parameters_as_published(name, millions):
    import torch

    with torch.device("meta"):
        model = HubViTModel(HubViTConfig.preset(f"DINOv3-{name}"))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_presets_can_be_overridden_and_are_named():
    assert HubDeiTConfig.preset("Ti", hidden_size=96).hidden_size == 96
    with pytest.raises(ValueError, match=r"`name`.*'XL'"):
        HubViTConfig.preset("XL")


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"hidden_size": 0}, "hidden_size", "0"),
        ({"hidden_size": 10, "num_attention_heads": 3}, "hidden_size", "10 and 3"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers", "2.5"),
        ({"num_hidden_layers": True}, "num_hidden_layers", "True"),
        ({"num_attention_heads": "4"}, "num_attention_heads", "'4'"),
        ({"intermediate_size": -1}, "intermediate_size", "-1"),
        ({"hidden_act": "golu"}, "hidden_act", "'golu'"),
        ({"qkv_bias": 1}, "qkv_bias", "1"),
        ({"layer_norm_eps": 0}, "layer_norm_eps", "0"),
        ({"layer_scale_init_value": -1e-4}, "layer_scale_init_value", "-0.0001"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob", "1.0"),
        ({"drop_path_rate": -0.1}, "drop_path_rate", "-0.1"),
        ({"drop_path_rate": float("nan")}, "drop_path_rate", "nan"),
        ({"drop_path_schedule": "cosine"}, "drop_path_schedule", "'cosine'"),
        ({"image_size": 225}, "image_size", "225 and 16"),
        ({"image_size": (224, 0)}, "image_size", "(224, 0)"),
        ({"image_size": (1, 2, 3)}, "image_size", "(1, 2, 3)"),
        ({"patch_size": "16"}, "patch_size", "'16'"),
        ({"num_channels": 0}, "num_channels", "0"),
        ({"num_register_tokens": -1}, "num_register_tokens", "-1"),
        ({"position_embedding_type": "rope"}, "position_embedding_type", "'rope'"),
        ({"position_embedding_type": "sincos", "hidden_size": 6, "num_attention_heads": 3}, "hidden_size", "6"),
        ({"position_embedding_type": "rotary", "hidden_size": 6, "num_attention_heads": 3}, "num_attention_heads", "6"),
        ({"position_embedding_type": "rotary", "rotary_theta": 1.0}, "rotary_theta", "1.0"),
        ({"position_embedding_type": "rotary", "rotary_rescale": 0.5}, "rotary_rescale", "0.5"),
        ({"position_embedding_type": "rotary", "rotary_shift": -0.1}, "rotary_shift", "-0.1"),
        ({"rotary_jitter": 2.0}, "rotary_jitter", "'learned'"),
        ({"key_bias": 1}, "key_bias", "1"),
        ({"qk_norm": None}, "qk_norm", "None"),
        ({"position_embedding_resampling": "nearest"}, "position_embedding_resampling", "'nearest'"),
        ({"pool": "max"}, "pool", "'max'"),
        ({"pool": "cls", "use_cls_token": False}, "pool", "'cls'"),
        ({"problem_type": "classification"}, "problem_type", "'classification'"),
        ({"num_labels": 0}, "num_labels", "{}"),
        ({"id2label": {0: "cat", 1: "cat"}}, "id2label", "'cat'"),
        ({"id2label": ["cat", "dog"]}, "id2label", "['cat', 'dog']"),
        ({"id2label": {"x": "cat"}}, "id2label", "'x': 'cat'"),
        ({"id2label": {0: None}}, "id2label", "0: None"),
        ({"id2label": {0: {"a": 1}}}, "id2label", "{'a': 1}"),
        ({"id2label": 7}, "id2label", "7"),
        ({"label2id": {"cat": "x"}}, "label2id", "'cat': 'x'"),
        ({"label2id": "cat"}, "label2id", "'cat'"),
        ({"layer_scale_init_value": 1e308}, "layer_scale_init_value", "1e+308"),
        ({"initializer_range": 2**64}, "initializer_range", "18446744073709551616"),
        ({"id2label": {0: "cat", 2: "dog"}}, "id2label", "[0, 2]"),
        ({"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 1, "dog": 0}}, "label2id", "'cat': 1"),
        ({"hiden_size": 64}, "hiden_size", "hidden_size"),
        ({"drop_path": 0.1}, "drop_path", "drop_path_rate"),
    ],
)
def test_a_wrong_value_is_refused_by_field_and_value(fields, field, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        HubViTConfig(**fields)
    assert f"`{field}`" in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"distillation": "token"}, "distillation", "'token'"),
        ({"distillation_temperature": 0}, "distillation_temperature", "0"),
        ({"distillation_alpha": 1.5}, "distillation_alpha", "1.5"),
        ({"distillation_reduction": "mean"}, "distillation_reduction", "'mean'"),
        ({"use_distillation_token": False}, "use_distillation_head", "use_distillation_token"),
        ({"pool": "cls+mean"}, "use_distillation_head", "'cls+mean'"),
        ({"distillation": "soft", "problem_type": "regression", "num_labels": 1}, "distillation", "'soft'"),
    ],
)
def test_a_wrong_value_of_deit_is_refused(fields, field, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        HubDeiTConfig(**fields)
    assert f"`{field}`" in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize("size", [10**5, 10**9, 2**64])
@pytest.mark.parametrize(
    "field",
    ["hidden_size", "num_hidden_layers", "intermediate_size", "num_register_tokens", "num_channels", "image_size"],
)
def test_a_size_beyond_any_model_is_refused_before_memory_is_taken(field, size):
    size = size // 48 * 48
    if field == "intermediate_size":
        size *= 10
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"`{field}`.*{size}"):
            HubViTConfig(**{field: size, "patch_size": 16})
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("config_class", [HubViTConfig, HubDeiTConfig, HubDetrConfig])
@pytest.mark.parametrize("count", [10**7, 10**12, -1, 2.5, True, None])
def test_an_impossible_number_of_labels_is_refused_before_memory_is_taken(config_class, count):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"`num_labels`.*{count}"):
            config_class(num_labels=count)
        with pytest.raises(ValueError, match=rf"`num_labels`.*{count}"):
            config_class(num_labels=count, id2label={0: "a", 1: "b"})
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_as_many_patches_as_no_transformer_sees_are_refused():
    with pytest.raises(ValueError, match=r"`image_size` \(1024, 1024\).*`patch_size` \(1, 1\) makes 1048576 tokens"):
        HubViTConfig(image_size=1024, patch_size=1)


@pytest.mark.parametrize(
    ("image_size", "told"),
    [(100, "got 100 and 14; take 98 or 112"), ((28, 100), r"take \(28, 98\) or \(28, 112\)"), (5, "take 14$")],
)
def test_sizes_that_patches_divide_are_named(image_size, told):
    with pytest.raises(ValueError, match=f"`image_size` must be a multiple of `patch_size`, .*{told}"):
        HubViTConfig(image_size=image_size, patch_size=14)


def test_the_largest_model_published_is_a_configuration():
    config = HubViTConfig(
        hidden_size=6144, num_hidden_layers=48, num_attention_heads=48, intermediate_size=24576, patch_size=14
    )
    assert config.num_hidden_layers == 48


def test_deit_states_only_the_difference():
    own = set(HubDeiTConfig().to_dict()) - set(HubViTConfig().to_dict())
    assert all("distillation" in name for name in own)
    assert len(own) == 6


@given(
    width=st.integers(1, 8),
    heads=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    patch=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    registers=st.integers(0, 3),
    pool=st.sampled_from(["cls", "mean", "cls+mean"]),
    labels=st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=4, unique=True),
)
def test_any_configuration_survives_its_file(tmp_path_factory, width, heads, grid, patch, registers, pool, labels):
    folder = tmp_path_factory.mktemp("config")
    config = HubViTConfig(
        hidden_size=width * heads,
        num_attention_heads=heads,
        image_size=(grid[0] * patch[0], grid[1] * patch[1]),
        patch_size=patch,
        num_register_tokens=registers,
        pool=pool,
        id2label=dict(enumerate(labels)),
        drop_path_rate=0.25,
    )
    config.save_pretrained(folder)
    loaded = AutoConfig.from_pretrained(folder)
    assert type(loaded) is HubViTConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.grid_size == grid
    assert loaded.label2id == {name: index for index, name in enumerate(labels)}


def test_a_file_with_fields_of_others_loads(tmp_path):
    HubViTConfig().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content |= {"auto_map": {"AutoModel": "x.Y"}, "some_future_field": 3}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert AutoConfig.from_pretrained(tmp_path).some_future_field == 3


@pytest.mark.parametrize("depth", [1, 2, 12])
def test_drop_path_rates_are_those_of_timm(depth):
    config = HubViTConfig(num_hidden_layers=depth, drop_path_rate=0.3)
    if depth > 1:
        assert config.drop_path_rates == pytest.approx(calculate_drop_path_rates(0.3, depth), abs=1e-7)
    uniform = HubViTConfig(num_hidden_layers=depth, drop_path_rate=0.3, drop_path_schedule="uniform")
    assert uniform.drop_path_rates == [0.3] * depth


def test_swiglu_has_two_thirds_of_the_width_rounded_up_to_eight():
    # DINOv2 ViT-g/14: 1536 wide, 4096 in the MLP.
    assert HubViTConfig(hidden_size=1536, num_attention_heads=24, use_swiglu_ffn=True).intermediate_size == 4096


def test_output_attentions_is_a_field_under_every_implementation():
    config = HubViTConfig(attn_implementation="sdpa", output_attentions=True)
    assert config.output_attentions
    config.output_attentions = False
    assert not config.output_attentions
