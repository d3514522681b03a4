"""Choice of the layers that int8 leaves in fp32: as few as the limit needs, and all that was tried is told."""

import json

import pytest
from vithub.deployment.exports.quantization import quantize_within
from vithub.hub.exported.forms import BackendError

LAYERS = [f"layer{number}" for number in range(1, 13)]


class Written:
    """Writes the names of the layers in fp32 in place of an int8 file."""

    def __init__(self, folder, layers=LAYERS):
        self.folder, self.layers = folder, layers

    def write(self, file, left=()):
        file.write_text(json.dumps(list(left)))


def chosen(folder, needed, layers=LAYERS):
    """The choice where a file passes if the layers `needed` are in fp32, and its error is the number that is not."""

    def missing(file):
        return len(set(needed) - set(json.loads(file.read_text())))

    def fault(file):
        return f"{missing(file)} points less" if missing(file) else None

    file = folder / "model.onnx"
    left, refused = quantize_within(Written(folder, layers), file, fault, missing)
    assert json.loads(file.read_text()) == left
    return left, [(choice.left, choice.reason) for choice in refused]


def test_as_few_layers_as_needed_are_left(tmp_path):
    assert chosen(tmp_path, []) == ([], [])
    ends = ["layer1", "layer12"]
    assert chosen(tmp_path, ["layer12"]) == (ends, [([], "1 points less")])
    left, refused = chosen(tmp_path, ["layer5"])
    assert left == [*ends, "layer4", "layer5", "layer6"]  # the quarter that holds it
    assert refused == [([], "1 points less"), (ends, "1 points less")]
    assert chosen(tmp_path, ["only"], ["only"]) == (["only"], [([], "1 points less")])


def test_where_no_choice_passes_all_of_them_are_told(tmp_path):
    with pytest.raises(BackendError) as caught:
        chosen(tmp_path, ["layer5", "layer8", "layer9", "elsewhere"])
    assert str(caught.value) == (
        "int8 loses too much accuracy with these calibration images, even with 10 of 12 layers in fp32: no layer in "
        "fp32, 4 points less; layers 1, 12 in fp32, 4 points less; layers 1, 7 to 9, 12 in fp32, 2 points less; layers "
        "1, 4 to 9, 12 in fp32, 1 points less; layers 1 to 9, 12 in fp32, 1 points less"
    )
