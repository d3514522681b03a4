"""`optimize` with int8 that it makes itself."""

import dataclasses
import shutil

import PIL.Image
import pytest
import safetensors.torch
import torch
from transformers import ViTImageProcessor
from vithub.data.image_processing import build_image_processor
from vithub.deployment.exporting import export
from vithub.deployment.exports.graphs import trace
from vithub.deployment.exports.quantization import Quantizer
from vithub.deployment.optimizing.answers import LARGEST_DIFFERENCE
from vithub.deployment.optimizing.candidates import REFERENCE, Candidate
from vithub.deployment.optimizing.measuring import Measurement, MeasuringProcess
from vithub.deployment.optimizing.measuring_process import answer
from vithub.deployment.optimizing.optimizing import _compared, optimize
from vithub.hub.exported.forms import Form

import vithub

SECONDS = 120  # ample on a busy machine; a measurement of these models takes less than one


def test_int8_is_judged_by_its_accuracy(run_folder, tmp_path):
    """int8 moves probabilities further than any other form may; what it must pass is the gate of `export`."""
    folder = shutil.copytree(run_folder, tmp_path / "run")
    export(folder, "onnx", precision="int8", calibration_images=16, max_drop=100)
    safetensors.torch.save_file(
        {f"{row:04}": torch.randn(3, 12, 12) for row in range(8)}, tmp_path / "pixels.safetensors"
    )
    rows = []
    with MeasuringProcess(folder, tmp_path) as process:
        for candidate in (REFERENCE, Candidate("onnx", "int8")):
            request = {
                "candidate": dataclasses.asdict(candidate), "folder": str(folder), "work": str(tmp_path), "data": None,
                "pixels": str(tmp_path / "pixels.safetensors"), "answers": str(process.answers_of(candidate)),
                "threads": [1], "batch_sizes": [4], "best": None, "limit": SECONDS, "together": True, "reference": None,
            }  # fmt: skip
            found = answer(request)  # in this process: engines disturb each other's times, and no answers
            rows.append(Measurement(candidate, found["seconds"], 4, 1, note=found["note"], gated=found["gated"]))
        compared = _compared(process, rows[1], rows[:1], False, 10)
    assert rows[0].note is None
    assert compared.refused is None
    assert compared.images == 8
    assert compared.difference > 0
    assert compared.note.startswith("accuracy ")
    assert "images of digits" in compared.note


def test_attention_products_are_not_in_int8(tiny, randomised, tmp_path):
    import openvino

    model = randomised(vithub.HubViTForImageClassification(tiny()))
    traced = trace(model, build_image_processor((32, 32)))
    with Quantizer(traced, Form("openvino", "int8"), [torch.randn(1, 3, 32, 32)]) as quantizer:
        quantizer.write(tmp_path / "model.xml")
    nodes = openvino.Core().read_model(tmp_path / "model.xml").get_ordered_ops()
    attention = [node for node in nodes if node.get_type_name() == "ScaledDotProductAttention"]
    assert len(attention) == model.config.num_hidden_layers
    assert "FakeQuantize" in {node.get_type_name() for node in nodes}
    for node in attention:
        for place in range(3):  # queries, keys, values
            source = node.input_value(place).get_node()
            while source.get_type_name() in ("Reshape", "Transpose", "Unsqueeze"):
                source = source.input_value(0).get_node()
            assert source.get_type_name() == "Add"  # of the projection's bias


def test_int8_is_made_and_calibrated_on_given_images(tiny, randomised, photos, tmp_path):
    """Without labels its answers must be those of eager fp32, as those of every other way."""
    folder, work = tmp_path / "model", tmp_path / "work"
    work.mkdir()
    randomised(vithub.HubViTForImageClassification(tiny())).save_pretrained(folder)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    pixels = processor([PIL.Image.open(photo).convert("RGB") for photo in photos], return_tensors="pt")["pixel_values"]
    safetensors.torch.save_file({f"{row:04}": one for row, one in enumerate(pixels)}, work / "pixels.safetensors")
    candidate, rows = Candidate("openvino", "int8"), []
    with MeasuringProcess(folder, work, calibrate=True) as process:
        for one in (REFERENCE, candidate):
            request = {
                "candidate": dataclasses.asdict(one), "folder": str(folder), "work": str(work), "data": None,
                "pixels": str(work / "pixels.safetensors"), "answers": str(process.answers_of(one)), "threads": [1],
                "batch_sizes": [4], "best": None, "limit": SECONDS, "together": True,
                "reference": str(process.answers_of(REFERENCE)),
            }  # fmt: skip
            found = answer(request)
            assert "error" not in found, found
            rows.append(Measurement(one, found["seconds"], 4, 1, note=found["note"], gated=found["gated"]))
        compared = _compared(process, rows[1], rows[:1], False, 3)
    assert rows[1].note.startswith("calibrated on 8 images, ")
    assert not rows[1].gated
    assert compared.images == 8
    assert compared.difference > 0
    assert (compared.refused is None) == (compared.difference <= LARGEST_DIFFERENCE and compared.agreement == 1)
    with pytest.raises(ValueError, match=r"is calibrated with images: give .*images"):
        optimize(folder, int8=True)
