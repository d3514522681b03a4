"""Names and values that configurations accept: a mistaken one is an error of a person and a warning of a file."""

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, modeling_utils
from transformers.models.auto import auto_factory

import vithub
from vithub import HubDeiTConfig, HubDetrConfig, HubViTConfig

CLASSES = [HubViTConfig, HubDeiTConfig, HubDetrConfig]
# Fields of other programs that resemble one of ours, and ours.
RESEMBLING = [
    (HubViTConfig, "layer_norm_epsilon", "layer_norm_eps"),
    (HubViTConfig, "num_classes", "num_labels"),
    (HubViTConfig, "patch_stride", "patch_size"),
    (HubDeiTConfig, "distilation", "distillation"),
    (HubDetrConfig, "encoder_layerdrop", "encoder_layers"),
]


@pytest.fixture
def warned(caplog):
    """Messages that were logged as warnings since."""
    return lambda: [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize(("config_class", "name", "meant"), RESEMBLING)
def test_a_resembling_field_is_refused_from_a_person_and_warned_of_in_a_file(
    config_class, name, meant, tmp_path, warned
):
    with pytest.raises(ValueError, match=f"`{name}`.*`{meant}`.*got 0.25"):
        config_class(**{name: 0.25})
    config_class().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`{name}`.*`{meant}`"):
        AutoConfig.from_pretrained(tmp_path, **{name: 0.25})
    assert warned() == []
    content = json.loads((tmp_path / "config.json").read_text()) | {name: 0.25}
    (tmp_path / "config.json").write_text(json.dumps(content))
    for load in (
        lambda: AutoConfig.from_pretrained(tmp_path),
        lambda: config_class.from_json_file(tmp_path / "config.json"),
        lambda: config_class.from_dict(copy.deepcopy(content)),
    ):
        before = len(warned())
        assert getattr(load(), meant) == getattr(config_class(), meant)
        assert len(warned()) == before + 1
        assert f"`{name}`" in warned()[-1]
    with pytest.raises(ValueError, match=f"`{name}`"):  # reading a file leaves nothing behind
        config_class(**{name: 0.25})


def test_a_resembling_field_of_a_nested_backbone_is_treated_alike(tmp_path, warned):
    backbone = {"model_type": "vithub_vit", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(ValueError, match=r"`layer_norm_epsilon`"):
        HubDetrConfig(backbone_config={**backbone, "layer_norm_epsilon": 1e-3})
    HubDetrConfig(backbone_config=backbone).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["backbone_config"]["layer_norm_epsilon"] = 1e-3
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert AutoConfig.from_pretrained(tmp_path).backbone_config.hidden_size == 16
    assert any("`layer_norm_epsilon`" in message for message in warned())


@pytest.mark.parametrize("name", ["grid_size", "num_class_tokens", "save_pretrained", "check"])
def test_what_is_derived_cannot_be_given(name, warned):
    with pytest.raises(ValueError, match=f"`{name}` is no field that can be set"):
        HubViTConfig(**{name: 3})
    loaded = HubViTConfig.from_dict({name: 3})
    assert getattr(loaded, name) != 3
    assert f"`{name}`" in warned()[-1]


def names_of(config_class):
    shown = [name for name in dir(config_class) if not name.startswith("_")]
    fields = list(config_class.__dataclass_fields__)
    return st.one_of(
        st.sampled_from(fields),
        st.sampled_from(shown),
        st.sampled_from([name for _, name, _ in RESEMBLING]),
        st.from_regex(r"[a-z]{1,6}(_[a-z]{1,6})?", fullmatch=True),
    )


PLAIN = st.one_of(st.booleans(), st.integers(-1, 70), st.floats(0, 1.5), st.text("abc", max_size=3), st.none())
VALUES = st.one_of(
    PLAIN,
    st.sampled_from([float("inf"), float("nan"), 16, 32, (32, 16), [64, 32], "relu", "mean", "bicubic", "float16"]),
    st.lists(PLAIN, max_size=3),
    st.dictionaries(st.text("abc", min_size=1, max_size=3), PLAIN, max_size=2),
)


@pytest.mark.parametrize("config_class", CLASSES)
@given(data=st.data())
def test_what_the_constructor_accepts_survives_its_file(config_class, data, tmp_path_factory):
    given_fields = data.draw(st.dictionaries(names_of(config_class), VALUES, max_size=4))
    try:
        config = config_class(**given_fields)
    except (ValueError, TypeError, AttributeError):  # the latter two are transformers' own, of its own fields
        return
    folder = tmp_path_factory.mktemp("config")
    config.save_pretrained(folder)
    loaded = AutoConfig.from_pretrained(folder)
    assert type(loaded) is config_class
    assert as_json(loaded) == as_json(config)


def as_json(config):
    content = json.loads(json.dumps(config.to_dict(), default=str))
    return json.dumps({**content, "_name_or_path": "", "transformers_version": ""}, sort_keys=True)


def test_what_cannot_be_loaded_is_not_written(tmp_path, tiny):
    model = vithub.HubViTForImageClassification(tiny())
    model.config.hidden_act = "golu"
    for save in (model.config.save_pretrained, model.save_pretrained):
        with pytest.raises(ValueError, match=r"`hidden_act`.*'golu'"):
            save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fields_that_replace_those_of_a_file_are_checked(tmp_path, tiny):
    tiny().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, drop_path_rate=0.5).drop_path_rate == 0.5
    with pytest.raises(ValueError, match=r"`drop_path_rate`.*1.5"):
        AutoConfig.from_pretrained(tmp_path, drop_path_rate=1.5)


@pytest.mark.parametrize("config_class", CLASSES)
def test_no_argument_of_transformers_loading_is_taken_for_a_misspelling(config_class):
    """Arguments of `from_pretrained` come along with fields, as none says which is which."""
    pattern = re.compile(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)["']""")
    names = set()
    for module in (modeling_utils, auto_factory):
        names |= set(pattern.findall(Path(module.__file__).read_text(encoding="utf-8")))
    assert len(names) > 20
    assert {name: config_class._mistake_in(name) for name in names if config_class._mistake_in(name)} == {}


def test_the_stride_of_the_encoder_is_the_patch():
    config = HubViTConfig(image_size=32, patch_size=8, encoder_stride=8)
    assert config.encoder_stride == 8
    config.update({"image_size": 64, "patch_size": 16, "encoder_stride": 16})
    assert (config.encoder_stride, config.grid_size) == (16, (4, 4))
    rectangle = HubViTConfig(image_size=(24, 20), patch_size=(6, 4))
    rectangle.update({"encoder_stride": rectangle.encoder_stride})
    with pytest.raises(ValueError, match=r"`encoder_stride`.*got 16 and 8"):
        HubViTConfig(image_size=32, patch_size=8, encoder_stride=16)
    assert HubViTConfig.from_dict({"image_size": 32, "patch_size": 8, "encoder_stride": 16}).encoder_stride == 8


def test_channels_of_a_detector_are_its_backbones():
    backbone = AutoConfig.for_model("resnet", out_features=["stage4"])
    config = HubDetrConfig(backbone_config=backbone, num_channels=1)
    assert (config.num_channels, config.backbone_config.num_channels, backbone.num_channels) == (1, 1, 3)
    config.num_channels = 4
    assert config.backbone_config.num_channels == 4
    assert HubDetrConfig.from_dict(config.to_dict()).num_channels == 4
    with pytest.raises(ValueError, match=r"`num_channels`.*'3'"):
        config.num_channels = "3"


def test_labels_may_be_written_as_the_example_scripts_write_them(tmp_path, tiny):
    """Numbers as strings in both directions, in place of the file's own labels."""
    tiny().save_pretrained(tmp_path)
    names = ["rose", "tulip", "daisy"]
    config = AutoConfig.from_pretrained(
        tmp_path, num_labels=3, label2id={name: str(i) for i, name in enumerate(names)},
        id2label={str(i): name for i, name in enumerate(names)},
    )  # fmt: skip
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: index for index, name in enumerate(names)}
