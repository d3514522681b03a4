"""Files with preprocessing answer raw pixels of any size as `pipeline` answers the image, or are refused."""

import re
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import PIL.Image
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from timm.data import create_transform
from transformers import (
    BitImageProcessor,
    DeiTImageProcessor,
    EfficientNetImageProcessor,
    ViTImageProcessor,
    ViTImageProcessorPil,
    pipeline,
)
from vithub.data.image_processing import build_image_processor
from vithub.deployment import exporting
from vithub.deployment.exporting import export
from vithub.deployment.preprocessing import in_graph
from vithub.deployment.preprocessing.in_graph import measure_preprocessing, preprocess_in_graph
from vithub.deployment.preprocessing.pixel_nodes import write_preprocessing
from vithub.deployment.preprocessing.pixel_steps import pixel_steps
from vithub.deployment.preprocessing.readings import ClassReading
from vithub.hub.exported.forms import BackendError, read_records
from vithub.hub.exported.sessions import OnnxSession
from vithub.hub.push.files import select_files
from vithub.training.dataset_prediction import predict_dataset

import vithub


class TimmProcessor:
    """timm's own evaluation transform, as the wrapper of transformers calls it."""

    def __init__(self, size, interpolation="bicubic", crop=0.875):
        self.data_config = {
            "input_size": (3, size, size), "interpolation": interpolation, "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.3, 0.4), "crop_pct": crop, "crop_mode": "center",
        }  # fmt: skip
        self.transform = create_transform(**self.data_config, is_training=False)

    def __call__(self, image, return_tensors):
        return {"pixel_values": self.transform(image)[None]}


PROCESSORS = {
    "ours": build_image_processor((24, 24)),
    "ours-bilinear": build_image_processor((24, 24), interpolation="bilinear", crop_ratio=0.9),
    "ours-pillow": build_image_processor((24, 24), backend="pil"),
    "ours-not-square": build_image_processor((16, 28)),
    "vit": ViTImageProcessor(size={"height": 20, "width": 30}),
    "vit-pillow": ViTImageProcessorPil(size={"height": 20, "width": 30}),
    "deit": DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size={"height": 33, "width": 33}),
    "not-normalised": BitImageProcessor(
        size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20}, do_normalize=False
    ),
    "timm": TimmProcessor(32),
    "timm-odd": TimmProcessor(33, "bilinear", 0.8),
}


@pytest.fixture(scope="module", params=PROCESSORS)
def graph(request, tmp_path_factory):
    """An image processor, and the session of its preprocessing."""
    processor = PROCESSORS[request.param]
    file = tmp_path_factory.mktemp("preprocessing") / "preprocessing.onnx"
    write_preprocessing(file, pixel_steps(processor))
    return processor, OnnxSession(file, 1)


@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    seed=st.integers(0, 2**16),
    smoothness=st.sampled_from([1, 7, 40]),
)
@settings(max_examples=40, deadline=None)
def test_pixels_are_those_of_the_processor_for_any_size(graph, size, seed, smoothness):
    processor, session = graph
    height, width = size
    cells = np.random.default_rng(seed).integers(
        0, 256, (-(-height // smoothness), -(-width // smoothness), 3), dtype=np.uint8
    )
    levels = cells.repeat(smoothness, 0).repeat(smoothness, 1)[:height, :width]
    wanted = processor(PIL.Image.fromarray(levels), return_tensors="pt")["pixel_values"]
    (found,) = session(torch.from_numpy(levels.copy())[None])
    assert found.shape == wanted.shape
    std = torch.tensor(pixel_steps(processor).std)[:, None, None]
    assert float(((found - wanted).abs() * std).max()) <= 2.01  # levels; torch's own differ from Pillow's by as much


def test_a_batch_of_images_is_the_images_of_a_batch(graph):
    _, session = graph
    levels = torch.randint(256, (3, 41, 57, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(session(levels)[0], torch.cat([session(one[None])[0] for one in levels]), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (ViTImageProcessor(resample=1), "resizes by bilinear or bicubic, and ViTImageProcessor by lanczos"),
        (ViTImageProcessor(do_resize=False), "ViTImageProcessor does not resize"),
        (BitImageProcessor(size={"shortest_edge": 9}, do_center_crop=False), "needs one size .* gives several"),
        (BitImageProcessor(size={"shortest_edge": 20}), "does not pad: .* resizes to 20 x 20 .* crops 224 x 224"),
    ],
)
def test_a_step_that_the_graph_cannot_express_is_named(processor, message):
    with pytest.raises(BackendError, match=message):
        pixel_steps(processor)


@pytest.mark.parametrize(
    "processor", [EfficientNetImageProcessor(size={"height": 20, "width": 20}, do_center_crop=False)]
)
def test_a_step_that_is_not_known_shows_in_the_pixels(processor, tmp_path):
    steps = pixel_steps(processor)  # it also subtracts 1
    write_preprocessing(tmp_path / "preprocessing.onnx", steps)
    with pytest.raises(BackendError, match=r"cannot express EfficientNetImageProcessor: its pixels differ by up to"):
        measure_preprocessing(OnnxSession(tmp_path / "preprocessing.onnx"), processor, steps)


# Whole files


@pytest.fixture(scope="module")
def run_folder(finished_run, tmp_path_factory):
    """A run's folder with a file with preprocessing, and no other."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(finished_run.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "logs"))
    export(folder, "onnx", with_preprocessing=True)
    return folder


def photos():
    """Photos and parts of them with odd sizes."""
    for image in load_sample_images().images:
        yield PIL.Image.fromarray(image)
        yield PIL.Image.fromarray(np.ascontiguousarray(image[3:134, 200:637:3]))
        yield PIL.Image.fromarray(np.ascontiguousarray(image[::5, 17:30]))


def test_the_answers_are_those_of_the_pipeline(run_folder):
    classify = pipeline("image-classification", model=vithub.load(run_folder), top_k=10,
                        image_processor=build_image_processor((12, 12)))  # fmt: skip
    classify.image_processor = classify.image_processor.from_pretrained(run_folder)
    session = onnxruntime.InferenceSession(str(run_folder / "onnx" / "model_pixels.onnx"))
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[3]) == ("image", "tensor(uint8)", 3)
    assert [output.name for output in session.get_outputs()] == ["probabilities", "logits"]
    names = classify.model.config.id2label
    for image in photos():
        wanted = {answer["label"]: answer["score"] for answer in classify(image)}
        (found,) = session.run(["probabilities"], {"image": np.asarray(image)[None]})[0]
        assert names[int(found.argmax())] == max(wanted, key=wanted.get)
        for number, name in names.items():
            assert found[number] == pytest.approx(wanted[name], abs=2e-3)


def test_evaluation_prediction_and_pipeline_feed_raw_pixels(run_folder, digit_folders, tmp_path):
    of_weights = vithub.evaluate(run_folder, backend="torch")
    for backend in ("onnx", "onnx-pixels"):  # one name stands for the other where there is no plain file
        of_file = vithub.evaluate(run_folder, backend=backend)
        assert of_file["metrics"]["accuracy"] == of_weights["metrics"]["accuracy"]
        assert of_file["metrics"]["loss"] == pytest.approx(of_weights["metrics"]["loss"], abs=1e-3)
    photo = tmp_path / "photo.png"
    next(photos()).save(photo)
    digit = next((digit_folders / "two").iterdir())
    one, other = (vithub.predict(run_folder, [photo, digit], backend=backend) for backend in ("torch", "onnx"))
    for wanted, found in zip(one, other, strict=True):
        assert [entry["label"] for entry in found["predictions"]] == [entry["label"] for entry in wanted["predictions"]]
        scores = [[entry["score"] for entry in answer["predictions"]] for answer in (wanted, found)]
        np.testing.assert_allclose(*scores, atol=2e-3)
    model = vithub.load_exported(run_folder, "onnx")
    classify = pipeline("image-classification", model=model, image_processor=model.image_processor, top_k=5)
    assert [entry["label"] for entry in classify(str(photo))] == [entry["label"] for entry in one[0]["predictions"]]
    with pytest.raises(
        ValueError, match=r"takes uint8 pixels \(batch, height, width, 3\), got float32 \(1, 3, 12, 12\)"
    ):
        model(pixel_values=torch.zeros(1, 3, 12, 12))
    with pytest.raises(ValueError, match="holds images of one size, got 2 x 3, 3 x 2"):
        model.image_processor([np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)])


def test_a_data_set_of_images_of_many_sizes_is_predicted(run_folder, tmp_path):
    for number, image in enumerate(photos()):
        folder = tmp_path / "photos" / ("two", "three")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    rows = {}
    for backend in ("torch", "onnx"):
        predict_dataset(run_folder, tmp_path / "photos", tmp_path / backend, backend=backend, workers=0)
        rows[backend] = pyarrow.parquet.read_table(tmp_path / backend / "part-000000.parquet").to_pydict()
    assert rows["onnx"]["label"] == rows["torch"]["label"]
    np.testing.assert_allclose(rows["onnx"]["logits"], rows["torch"]["logits"], atol=5e-2)


def test_int8_with_preprocessing_is_measured_on_raw_pixels(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    made = export(
        folder, "onnx", precision="int8", with_preprocessing=True, calibration_images=16, max_drop=8
    )  # fmt: skip
    assert made.file == folder / "onnx" / "model_quantized_pixels.onnx"
    assert not (folder / "onnx" / "model_quantized.onnx").exists()
    measured = vithub.evaluate(folder, backend="onnx-int8")
    assert made.record["accuracy"]["exported"] == measured["metrics"]["accuracy"]


def test_the_card_says_how_to_run_it_and_publishing_sends_it(run_folder, tmp_path, monkeypatch, capsys):
    card = (run_folder / "README.md").read_text()
    part = card[card.index("## Other forms") :]
    assert "`onnx/model_pixels.onnx`" in part
    monkeypatch.chdir(tmp_path)
    next(photos()).save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", part, re.DOTALL)[:2]
    for block in blocks:
        exec(compile(block, "card", "exec"), {})
    printed = capsys.readouterr().out
    assert "(1, 10)" in printed
    assert "score" in printed
    assert {"export.json", "onnx/model_pixels.onnx"} <= {file.path for file in select_files(run_folder) if file.sent}


@pytest.fixture(scope="module")
def with_plain_form(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "both"
    shutil.copytree(run_folder, folder)
    export(folder, "onnx")
    return folder


def test_a_plain_form_beside_it_keeps_its_name(with_plain_form):
    assert set(read_records(with_plain_form)) == {"onnx-pixels", "onnx"}
    assert vithub.load_exported(with_plain_form, "onnx").image_processor is None
    assert vithub.load_exported(with_plain_form, "onnx-pixels").image_processor is not None
    assert "AutoImageProcessor.from_pretrained" in (with_plain_form / "README.md").read_text()


@pytest.mark.parametrize("fault", ["mean", "shortest_edge", "crop_hw", "half_to_even", "interpolation", "sigmoid"])
def test_a_planted_fault_is_noticed(with_plain_form, tmp_path, monkeypatch, fault):
    processor = build_image_processor((12, 12))
    steps = pixel_steps(processor)
    other = {"mean": (0.0, 0.0, 0.0), "shortest_edge": 15, "crop_hw": (11, 12), "half_to_even": True,
             "interpolation": "bilinear"}  # fmt: skip
    wrong = replace(steps, **{fault: other[fault]}) if fault in other else steps
    source = with_plain_form / "onnx" / "model.onnx"
    made = in_graph.add_preprocessing
    if fault == "sigmoid":
        monkeypatch.setattr(in_graph, "add_preprocessing", lambda *given: made(*given[:3], ClassReading(True)))
    message = "probabilities that differ by" if fault == "sigmoid" else "cannot express BitImageProcessor"
    with pytest.raises(BackendError, match=message):
        preprocess_in_graph(source, tmp_path / "whole.onnx", wrong, processor, ClassReading(False))


def test_nothing_is_left_of_a_file_that_is_refused(run_folder, tmp_path, monkeypatch):
    wrong = replace(pixel_steps(build_image_processor((12, 12))), shortest_edge=15)
    monkeypatch.setattr(exporting, "check_preprocessing", lambda *_: wrong)
    with pytest.raises(BackendError, match=r"cannot express BitImageProcessor"):
        export(run_folder, "onnx", with_preprocessing=True, output=tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_where_it_does_not_go_is_said_first(run_folder, tiny, tmp_path):
    with pytest.raises(ValueError, match="is for onnx, got 'openvino'"):
        export(run_folder, "openvino", with_preprocessing=True)
    with pytest.raises(ValueError, match="takes no"):
        export(run_folder, "onnx", with_preprocessing=True, dynamic_size=True)
    vithub.HubViTModel(tiny()).save_pretrained(tmp_path / "backbone")
    build_image_processor((32, 32)).save_pretrained(tmp_path / "backbone")
    with pytest.raises(BackendError, match="for image classifiers and detectors, and HubViTModel is neither"):
        export(tmp_path / "backbone", "onnx", with_preprocessing=True, output=tmp_path / "features")
    assert not (tmp_path / "features").exists()
