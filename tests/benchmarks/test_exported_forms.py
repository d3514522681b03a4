"""`benchmarks/vit_speed/forms.py` compares outputs before it times, and names accuracy and speed of the same file."""

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "vit_speed"


@pytest.fixture(scope="module")
def forms():
    """The program as a module; its modules are forgotten afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("forms")
    sys.path[:] = before
    for name, known in list(sys.modules.items()):
        if str(FOLDER) in str(getattr(known, "__file__", "")):
            del sys.modules[name]


def test_outputs_of_other_weights_are_found(forms):
    logits = [[0.0, 1.0, 4.0], [2.0, 3.0, 1.0]]
    assert forms.difference({"logits": logits}, {"logits": logits}) == 0
    moved = [[0.0, 1.0, 4.0], [2.0, 3.4, 1.0]]
    assert forms.difference({"logits": logits}, {"logits": moved}) == pytest.approx(0.1)
    broken = [[0.0, 1.0, float("nan")], [2.0, 3.0, 1.0]]
    assert forms.difference({"logits": logits}, {"logits": broken}) == float("inf")
    swapped = {"logits": logits, "pred_boxes": [[0.1, 0.2, 0.3, 0.5]]}
    assert forms.difference(swapped, swapped | {"pred_boxes": [[0.5, 0.2, 0.3, 0.1]]}) == pytest.approx(1)


def test_contenders_are_eager_models_first_and_every_form(forms):
    names = list(forms.contenders_of("classification", [8]))
    assert names[0] == "vithub fp32"  # what the others are compared with
    assert {*forms.PEERS, "vithub bf16", "openvino bf16", "openvino int8, 8 tokens merged", "onnx int8"} <= set(names)
    assert not [name for name in forms.contenders_of("detection", [8]) if "timm" in name or "merged" in name]


def test_an_exported_folder_brings_its_accuracy(forms, tmp_path):
    accuracy = {"exported": 0.86, "source": 0.88, "drop_points": 2.0, "interval": [-0.05, 0.01], "images": 150}
    record = {"format": "openvino", "precision": "int8", "token_merging": 4, "accuracy": accuracy}
    (tmp_path / "export.json").write_text(json.dumps({"forms": {"openvino-int8": record}}))
    ways = forms.exported_contenders([tmp_path])
    assert ways["openvino int8, 4 tokens merged"]["folder"] == str(tmp_path)
    lines = forms.accuracy_lines({"contenders": ways})
    assert "| openvino int8, 4 tokens merged | 86.0% | 88.0% | -2.0 (-5.0 to +1.0) | 150 |" in lines
    assert forms.accuracy_lines({"contenders": {"vithub fp32": ways["vithub fp32"]}}) == []
