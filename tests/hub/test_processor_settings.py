"""Wrong values in `preprocessor_config.json` are refused by file and field, before an image of their size is made."""

import json

import pytest
from vithub.data.image_processing import build_image_processor
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.inference_loading import load_processor

import vithub


@pytest.fixture
def folder(tmp_path):
    build_image_processor((32, 32)).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_std", [float("inf")] * 3),  # every picture would be the same
        ("image_std", [0.2, -0.2, 0.2]),
        ("image_std", [True, 0.2, 0.2]),
        ("image_mean", [10**9, 0, 0]),
        ("image_mean", [float("nan"), 0, 0]),
        ("rescale_factor", -1.5),
        ("rescale_factor", 10**400),
        ("resample", 17),
        ("do_resize", 1),
        ("size", {"shortest_edge": 50_000}),
        ("crop_size", {"height": 50_000, "width": 32}),
        ("size", {"shortest_edge": 32.5}),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value, folder):
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {field} must be .*, got "):
        load_processor(folder)


def test_fields_may_be_missing_or_null(folder):
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"do_pad": None, "pad_size": None}))
    assert load_processor(folder).size == build_image_processor((32, 32)).size


def test_code_for_an_image_processor_is_not_run(tiny, tmp_path):
    vithub.HubViTForImageClassification(tiny()).save_pretrained(tmp_path)
    build_image_processor((32, 32)).save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    stated = {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | stated))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json gives no usable image processor"):
        vithub.load(tmp_path)
    assert not (tmp_path / "it-ran").exists()
