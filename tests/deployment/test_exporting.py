"""Exported files compute what their model computes, in every format and precision, or are refused."""

import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from transformers import AutoImageProcessor, ResNetConfig, ResNetForImageClassification, ViTImageProcessor, pipeline
from vithub.deployment import exporting
from vithub.deployment.exporting import export
from vithub.deployment.exports import writers
from vithub.deployment.exports.gate import paired_interval
from vithub.deployment.exports.graphs import Graph
from vithub.deployment.exports.token_merging import merge_in
from vithub.deployment.optimizing.candidates import computes_bf16
from vithub.hub.exported.forms import FORMS, BackendError, file_hash, form_of, read_records
from vithub.hub.push.files import select_files

import vithub

FLOATS = [form for form in FORMS if form.precision != "int8"]
FAST = "openvino"  # its converter takes a third of the time of ONNX's
INT8 = [form for form in FORMS if form.precision == "int8"]
ALLOWED = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.05}


@pytest.fixture(scope="module")
def run_folder(exported_run, tmp_path_factory):
    """A run's folder of its own, with every form that needs no images."""
    folder = shutil.copytree(exported_run, tmp_path_factory.mktemp("exported") / "run")
    for form in FLOATS:
        if form.precision != "fp32":
            export(folder, form.format, precision=form.precision)
    return folder


@pytest.mark.parametrize("form", FLOATS, ids=lambda form: form.name)
def test_a_file_computes_what_the_weights_compute_for_any_batch(run_folder, form):
    model = vithub.load(run_folder).eval()
    exported = vithub.load_exported(run_folder, form.name)
    for batch in (1, 3):
        pixels = torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            wanted = model(pixel_values=pixels).logits
        found = exported(pixel_values=pixels)
        assert type(found).__name__ == "ImageClassifierOutput"
        torch.testing.assert_close(found.logits, wanted, atol=ALLOWED[form.precision], rtol=0)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_detectors_file_takes_any_size_and_batch(exported_detector, backend):
    model = vithub.load(exported_detector).eval()
    exported = vithub.load_exported(exported_detector, backend)
    for shape in ((1, 3, 64, 80), (3, 3, 96, 64)):
        pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = model(pixel_values=pixels)
        found = exported(pixel_values=pixels, pixel_mask=torch.ones(shape[0], *shape[2:]))
        torch.testing.assert_close(found.logits, wanted.logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.pred_boxes, wanted.pred_boxes, atol=1e-4, rtol=0)
    mask = torch.ones(1, 64, 80)
    mask[:, :, 60:] = 0
    with pytest.raises(ValueError, match="without padding"):
        exported(pixel_values=torch.randn(1, 3, 64, 80), pixel_mask=mask)


def test_evaluation_and_prediction_run_a_form_as_they_run_the_weights(run_folder, digit_folders):
    of_weights = vithub.evaluate(run_folder, backend="torch")
    of_file = vithub.evaluate(run_folder, backend="onnx")
    assert of_file["metrics"]["accuracy"] == of_weights["metrics"]["accuracy"]
    assert of_file["metrics"]["loss"] == pytest.approx(of_weights["metrics"]["loss"], abs=1e-5)
    photo = next((digit_folders / "two").iterdir())
    one, other = (vithub.predict(run_folder, photo, backend=backend)[0] for backend in ("torch", "openvino"))
    assert [entry["label"] for entry in one["predictions"]] == [entry["label"] for entry in other["predictions"]]
    classify = pipeline(
        "image-classification", model=vithub.load_exported(run_folder, "onnx"),
        image_processor=AutoImageProcessor.from_pretrained(run_folder), top_k=5,
    )  # fmt: skip
    assert [entry["label"] for entry in classify(str(photo))] == [entry["label"] for entry in one["predictions"]]


def test_a_detector_is_measured_and_predicts_through_its_file(exported_detector, detector_data):
    found = {
        backend: vithub.evaluate(exported_detector, detector_data, backend=backend)["metrics"]["map_50"]
        for backend in ("torch", "onnx")
    }
    assert found["onnx"] == pytest.approx(found["torch"], abs=1e-3)
    assert found["torch"] > 0.1


@pytest.mark.parametrize("form", INT8, ids=lambda form: form.name)
def test_int8_is_calibrated_measured_and_recorded(run_folder, form):
    made = export(run_folder, form.format, precision="int8", calibration_images=16, max_drop=8)
    record = read_records(run_folder)[form.name]
    assert made.record == record
    assert record["int8"]["calibration_images"] == 16
    assert record["int8"]["calibrated_on"] == "digits, train split"
    assert record["accuracy"]["drop_points"] <= 8
    measured = vithub.evaluate(run_folder, backend=form.name)
    assert record["accuracy"]["exported"] == measured["metrics"]["accuracy"]
    assert record["accuracy"]["source"] == vithub.evaluate(run_folder, backend="torch")["metrics"]["accuracy"]
    assert record["files"][form.file] == file_hash(run_folder / form.file)
    exported = vithub.load_exported(run_folder, form.name)
    assert exported.session is not None
    if form.format == "openvino":  # the rest in bf16 where the processor multiplies in it
        assert exported.session.computes_in == ("bf16" if computes_bf16() else "f32")
    half = read_records(run_folder)[form.format]["bytes"] * 0.95
    assert record["bytes"] < half or form.format == "openvino"  # a tiny OpenVINO file is mostly its description


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_weights_beyond_one_file_lie_beside_it(run_folder, tmp_path, monkeypatch, precision):
    """A protobuf, which an ONNX file is, holds at most 2 GiB; here the limit is lowered."""
    monkeypatch.setattr(writers, "LARGEST_IN_ONE_FILE", 0)
    options = {"data": None, "calibration_images": 2, "max_drop": 100} if precision == "int8" else {}
    made = export(run_folder, "onnx", precision=precision, output=tmp_path / "large", **options)
    file, beside = (tmp_path / "large" / name for name in made.form.files)
    assert set(made.record["files"]) == set(made.form.files)
    assert made.record["bytes"] == file.stat().st_size + beside.stat().st_size
    pixels = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = vithub.load(run_folder).eval()(pixels).logits
    found = vithub.load_exported(tmp_path / "large")(pixel_values=pixels).logits
    torch.testing.assert_close(found, wanted, atol=0.05 if precision == "fp16" else 2.0, rtol=0)


def test_a_graph_with_merged_tokens_computes_what_the_merging_model_computes(run_folder, detector_run, tmp_path):
    made = export(run_folder, FAST, output=tmp_path / "merged", token_merging=2)
    assert made.record["token_merging"] == 2
    pixels = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = vithub.load(run_folder).eval()(pixels).logits
        wanted = merge_in(vithub.load(run_folder).eval(), 2)(pixels).logits
    found = vithub.load_exported(tmp_path / "merged")(pixel_values=pixels).logits
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)
    assert (plain - wanted).abs().max() > 1e-2
    with pytest.raises(ValueError, match="for the ViT and DeiT classifiers of this package"):
        export(detector_run.folder, FAST, output=tmp_path / "none", token_merging=2)


def test_a_folder_of_its_own_holds_all_that_the_file_needs(run_folder, digit_folders, tmp_path):
    export(run_folder, FAST, output=tmp_path / "apart")
    assert sorted(path.relative_to(tmp_path / "apart").as_posix() for path in (tmp_path / "apart").rglob("*.*")) == [
        "config.json", "export.json", "openvino/openvino_model.bin", "openvino/openvino_model.xml",
        "preprocessor_config.json",
    ]  # fmt: skip
    exported = vithub.load_exported(tmp_path / "apart")
    assert exported.config.id2label == vithub.load(run_folder).config.id2label
    assert vithub.evaluate(tmp_path / "apart", digit_folders)["images"] == 400
    with pytest.raises(BackendError, match="holds exported forms and no weights"):
        export(tmp_path / "apart", FAST, output=tmp_path / "again")


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_models_of_other_libraries_and_backbones_are_exported(tmp_path, tiny, randomised, backend):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "cnn")
    backbone = randomised(vithub.HubViTModel(tiny()))
    backbone.save_pretrained(tmp_path / "backbone")
    for name in ("cnn", "backbone"):
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / name)
        made = export(tmp_path / name, backend)
        assert made.record["largest_difference"]["batch"] < 1e-4
    exported = vithub.load_exported(tmp_path / "backbone", backend)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            exported(pixel_values=pixels).last_hidden_state, backbone(pixels).last_hidden_state, atol=1e-4, rtol=0
        )


def test_any_image_size_where_positions_are_resampled_and_one_size_elsewhere(run_folder, tmp_path):
    export(run_folder, "onnx", output=tmp_path / "any", dynamic_size=True)
    model, exported = vithub.load(run_folder).eval(), vithub.load_exported(tmp_path / "any")
    for size in ((12, 12), (20, 16), (8, 24)):
        pixels = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(
                exported(pixel_values=pixels).logits, model(pixel_values=pixels).logits, atol=1e-4, rtol=0
            )
    with pytest.raises(ValueError, match="takes images of 12 x 12 pixels, got 16 x 12"):
        vithub.load_exported(run_folder, "onnx")(pixel_values=torch.randn(1, 3, 16, 12))
    with pytest.raises(BackendError, match=r"openvino cannot express this model.*bicubic"):
        export(run_folder, "openvino", output=tmp_path / "never", dynamic_size=True)
    assert not (tmp_path / "never").exists()


def test_the_card_lists_the_forms_and_its_snippets_run(run_folder, digit_folders, tmp_path, monkeypatch, capsys):
    card = (run_folder / "README.md").read_text()
    part = card[card.index("## Other forms") :]
    for name in read_records(run_folder):
        assert f"`{form_of(name).file}`" in part
    monkeypatch.chdir(tmp_path)
    PIL.Image.open(next((digit_folders / "two").iterdir())).convert("RGB").save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", part, re.DOTALL)[:2]
    for block in blocks:
        exec(compile(block, "card", "exec"), {})
    printed = capsys.readouterr().out
    assert "(1, 10)" in printed  # the logits, by ONNX Runtime alone
    assert "score" in printed


def test_publishing_sends_the_forms_and_refuses_a_changed_one(run_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run_folder, folder)
    sent = {file.path for file in select_files(folder) if file.sent}
    assert {"export.json", "onnx/model.onnx", "openvino/openvino_model.xml", "openvino/openvino_model.bin"} <= sent
    (folder / "openvino" / "other.bin").write_bytes(b"pickled")
    assert "openvino/other.bin" not in {file.path for file in select_files(folder) if file.sent}
    (folder / "openvino" / "openvino_model.bin").write_bytes(b"other weights")
    with pytest.raises(BackendError, match=r"openvino_model\.bin was changed"):
        select_files(folder)


# Faults that a converter or a wrong file could bring: each must be noticed, and nothing may be left behind.


def damaged(change):
    """Wraps the writer: exports a model that `change` has damaged."""

    def write(traced, folder, form):
        # the program shares its tensors with the model, which stays as it is
        for name, value in list(traced.program.state_dict.items()):
            other = nn.Parameter(value.detach().clone(), requires_grad=False)
            change(name, other)
            traced.program.state_dict[name] = other
        writers.write_form(traced, folder, form)

    return write


def shift_head(name, value):
    if name.endswith("classifier.bias"):
        with torch.no_grad():
            value += torch.arange(len(value)) * 5.0


def swap_labels(name, value):
    if "classifier" in name:
        with torch.no_grad():
            value.copy_(value.flip(0).clone())


def zero_a_matrix(name, value):
    if name.endswith("layers.0.mlp.fc1.weight"):
        with torch.no_grad():
            value.zero_()


def wrong_mean(name, value):
    if "patch_embeddings.bias" in name:
        with torch.no_grad():
            value += torch.linspace(-1, 1, len(value))


@pytest.mark.parametrize("change", [shift_head, swap_labels, zero_a_matrix, wrong_mean])
def test_a_planted_fault_is_noticed_and_nothing_is_left(run_folder, tmp_path, monkeypatch, change):
    monkeypatch.setattr(exporting, "write_form", damaged(change))
    with pytest.raises(BackendError, match="differ from the model's"):
        export(run_folder, FAST, output=tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_numbers_beyond_fp16_are_noticed(run_folder, tmp_path, monkeypatch):
    def enlarge(name, value):
        if name.endswith("classifier.weight"):
            with torch.no_grad():
                value.mul_(1e6)

    monkeypatch.setattr(exporting, "write_form", damaged(enlarge))
    with pytest.raises(BackendError, match=r"infinite or not a number|differ from the model's"):
        export(run_folder, "onnx", precision="fp16", output=tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_calibration_on_noise_is_refused_by_the_accuracy_that_it_costs(run_folder, tmp_path, monkeypatch):
    noise = [torch.randn(1, 3, 12, 12) * 1e-3 + 50 for _ in range(2)]
    monkeypatch.setattr(exporting.Gate, "calibration_pixels", _calibrated(noise))
    with pytest.raises(
        BackendError, match=r"int8 loses .* in fp32: no layer in fp32, .* points of accuracy less; layers 1, "
    ):
        export(run_folder, "onnx", precision="int8", output=tmp_path / "bad", max_drop=0.5)
    assert not list(tmp_path.iterdir())


def _calibrated(pixels):
    def calibration_pixels(self, count):
        self.calibrated_on = "noise"
        return pixels

    return calibration_pixels


def test_the_gate_refuses_by_accuracy_what_parity_cannot_judge(run_folder, digit_folders, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "measure_parity", lambda *arguments: {"logits": 0.0, "batch": 0.0})
    monkeypatch.setattr(exporting, "write_form", damaged(swap_labels))
    with pytest.raises(BackendError, match=r"reaches accuracy .* where the model reaches .* nothing was kept"):
        export(run_folder, FAST, output=tmp_path / "bad", data=str(digit_folders))
    assert not list(tmp_path.iterdir())


def test_the_gate_refuses_a_detectors_file_by_its_boxes(exported_detector, detector_data, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "measure_parity", lambda *arguments: {"logits": 0.0, "batch": 0.0})
    monkeypatch.setattr(exporting, "write_form", damaged(swap_labels))
    with pytest.raises(BackendError, match=r"reaches map_50 .* where the model reaches .* nothing was kept"):
        export(exported_detector, FAST, output=tmp_path / "bad", data=detector_data)
    assert not list(tmp_path.iterdir())


# What lies in a folder


def test_a_changed_a_missing_and_an_unknown_form_are_named(run_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run_folder, folder)
    file = folder / "onnx" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BackendError, match=r"model\.onnx was changed since it was exported"):
        vithub.load_exported(folder, "onnx")
    file.unlink()
    with pytest.raises(BackendError, match=r"model\.onnx is missing, which export\.json lists"):
        vithub.evaluate(folder, backend="onnx")
    with pytest.raises(BackendError, match=r"there is no backend 'tensorrt'; there are torch, onnx, onnx-fp16"):
        vithub.load_exported(folder, "tensorrt")
    records = json.loads((folder / "export.json").read_text())
    records["forms"]["openvino"]["files"]["../config.json"] = "0"
    (folder / "export.json").write_text(json.dumps(records))
    with pytest.raises(BackendError, match=r"'\.\./config\.json' is no file of the form openvino"):
        vithub.load_exported(folder, "openvino")


def test_a_form_is_replaced_only_if_asked(run_folder):
    before = read_records(run_folder)["onnx"]["made"]
    with pytest.raises(BackendError, match=r"holds onnx/model\.onnx already"):
        export(run_folder, "onnx")
    assert read_records(run_folder)["onnx"]["made"] == before
    assert vithub.load_exported(run_folder, "onnx") is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "must be one of onnx, openvino, got 'tflite'"),
        ({"precision": "bf16"}, "of onnx must be one of fp32, fp16, int8, got 'bf16'"),
        ({"calibration_images": 0}, "must be at least 1, got 0"),
        ({"max_drop": -1.0}, "must be at least 0 points, got -1.0"),
        ({"max_drop": 1.0}, "need .*data.* to measure accuracy on"),
    ],
)
def test_wrong_arguments(run_folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(run_folder, **options, output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_int8_of_a_model_without_data_asks_for_it(tmp_path, tiny):
    model = vithub.HubViTForImageClassification(tiny())
    model.save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    with pytest.raises(BackendError, match="int8 is calibrated and measured with images"):
        export(tmp_path / "model", "onnx", precision="int8")


def test_a_missing_package_is_one_line(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("vithub.hub.exported.forms.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"openvino needs the package openvino; pip install 'vithub\[openvino\]'"):
        export(run_folder, "openvino", output=tmp_path / "out")


def test_the_interval_of_a_paired_difference_holds_what_it_says():
    generator = np.random.default_rng(0)
    for difference in (0.0, -0.03):
        held = 0
        for _ in range(400):
            lost, won, _ = generator.multinomial(150, [0.04 - min(difference, 0), 0.04, 0.92 + min(difference, 0)])
            low, high = paired_interval(int(lost), int(won), 150)
            held += low <= difference <= high
        assert held / 400 > 0.93
    low, high = paired_interval(0, 0, 150)
    assert low < 0 < high
    assert high < 0.03


def test_outputs_are_those_that_the_model_has(tiny):
    model = vithub.HubViTModel(tiny(add_pooling_layer=False)).eval()
    assert Graph(model).outputs == ["last_hidden_state", "pooler_output"]
