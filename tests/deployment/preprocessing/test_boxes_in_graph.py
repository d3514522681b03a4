"""A detector's file with preprocessing answers raw pixels of any size with the boxes of `pipeline`, or is refused."""

import re
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from patience import LONG
from sklearn.datasets import load_sample_images
from tiny_detectors import FIELDS, tiny_detector, tiny_processor
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    ConditionalDetrImageProcessor,
    DetrImageProcessor,
    RTDetrImageProcessor,
    YolosImageProcessor,
    pipeline,
)
from vithub.data.boxes.dataset import build_box_processor
from vithub.deployment.exporting import export
from vithub.deployment.preprocessing import in_graph
from vithub.deployment.preprocessing.in_graph import fitted_preprocessing, preprocess_in_graph
from vithub.deployment.preprocessing.nodes import Nodes, described, write_part
from vithub.deployment.preprocessing.pixel_steps import pixel_steps
from vithub.deployment.preprocessing.readings import BoxReading, box_reading, processor_boxes, write_reading
from vithub.hub.exported.forms import BackendError
from vithub.hub.exported.sessions import OnnxSession

import vithub

PROCESSORS = {
    "ours": build_box_processor(20, 33),
    "ours-focal": build_box_processor(33, 50, focal=True),
    "detr-longest": DetrImageProcessor(size={"max_height": 30, "max_width": 41}),
    "rt-detr": RTDetrImageProcessor(size={"height": 20, "width": 30}),
    "yolos": YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 160}),
}
OTHERS = sorted(set(FIELDS) - {"rt_detr"})


@pytest.fixture(scope="module", params=PROCESSORS)
def graph(request, tmp_path_factory):
    """A detector's image processor, its steps, and the session of its preprocessing."""
    processor = PROCESSORS[request.param]
    file = tmp_path_factory.mktemp("preprocessing") / "preprocessing.onnx"
    steps, _ = fitted_preprocessing(file, pixel_steps(processor, any_size=True), processor)
    return processor, steps, OnnxSession(file, 1)


@given(size=st.tuples(st.integers(1, 150), st.integers(1, 150)), smoothness=st.sampled_from([1, 7, 40]))
@settings(max_examples=40, deadline=None)
def test_pixels_are_those_of_the_processor_for_any_size(graph, size, smoothness):
    processor, steps, session = graph
    height, width = size
    assume(max(size) < (25 if steps.multiple == 1 else 4) * min(size))  # of narrow images processors leave no pixel
    cells = np.random.default_rng(height).integers(
        0, 256, (-(-height // smoothness), -(-width // smoothness), 3), dtype=np.uint8
    )
    levels = cells.repeat(smoothness, 0).repeat(smoothness, 1)[:height, :width]
    wanted = processor(PIL.Image.fromarray(levels), return_tensors="pt")["pixel_values"]
    (found,) = session(torch.from_numpy(levels.copy())[None])
    assert found.shape == wanted.shape
    assert float(((found - wanted).abs() * torch.tensor(steps.std)[:, None, None]).max()) <= 2.01  # levels


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (DetrImageProcessor(pad_size={"height": 99, "width": 99}), "does not pad; DetrImageProcessor .* and pads"),
        (RTDetrImageProcessor(do_resize=False), "RTDetrImageProcessor does not resize"),
        (DetrImageProcessor(resample=1), "by bilinear or bicubic, and DetrImageProcessor by lanczos"),
    ],
)
def test_a_step_that_the_graph_cannot_express_is_named(processor, message):
    with pytest.raises(BackendError, match=message):
        pixel_steps(processor, any_size=True)


READERS = [(DetrImageProcessor(), 12, 4, 3), (ConditionalDetrImageProcessor(), 40, 3, 3),
           (ConditionalDetrImageProcessor(), 5, 3, 3), (RTDetrImageProcessor(), 9, 3, 3)]  # fmt: skip


@pytest.fixture(scope="module", params=READERS, ids=lambda case: f"{type(case[0]).__name__}-{case[1]}")
def reader(request, tmp_path_factory):
    """Reading of boxes as an image processor reads them, its session, and the number of logits of a query."""
    reading, file = box_reading(*request.param), tmp_path_factory.mktemp("reading") / "reading.onnx"
    write_reading(file, reading)
    return reading, onnxruntime.InferenceSession(str(file)), request.param[1:3]


@given(seed=st.integers(0, 2**16), size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
@settings(max_examples=30, deadline=None)
def test_boxes_are_those_of_the_image_processor(reader, seed, size):
    reading, session, (queries, given) = reader
    draws = torch.Generator().manual_seed(seed)
    logits, boxes = torch.randn(1, queries, given, generator=draws) * 4, torch.rand(1, queries, 4, generator=draws)
    inputs = {"logits": logits.numpy(), "pred_boxes": boxes.numpy(), "image_size": np.array(size, np.float32)}
    found = dict(zip(("boxes", "scores", "labels"), session.run(["boxes", "scores", "labels"], inputs), strict=True))
    wanted = processor_boxes(reading.processor, logits, boxes, size)
    order = wanted["scores"].argsort(descending=True, stable=True)
    np.testing.assert_allclose(found["scores"][0], wanted["scores"][order], atol=1e-6)
    apart = np.diff(wanted["scores"][order], prepend=2, append=-1)
    clear = (apart[:-1] < -1e-5) & (apart[1:] < -1e-5)  # by rounding, near scores may change places
    np.testing.assert_array_equal(found["labels"][0][clear], wanted["labels"][order][clear])
    np.testing.assert_allclose(found["boxes"][0][clear], wanted["boxes"][order][clear], atol=1e-3 * max(size))


def test_boxes_that_are_read_in_another_way_are_refused():
    class Halves(DetrImageProcessor):
        def post_process_object_detection(self, *given, **options):
            (found,) = super().post_process_object_detection(*given, **options)
            return [{**found, "scores": found["scores"] / 2}]

    with pytest.raises(BackendError, match="Halves reads the 4 scores per query of 3 classes in another way"):
        box_reading(Halves(), 7, 4, 3)
    with pytest.raises(BackendError, match="those of an image processor, and object gives none"):
        box_reading(object(), 7, 4, 3)


# Whole files


def photos():
    """Photos and parts of them with odd sizes."""
    for image in load_sample_images().images:
        yield PIL.Image.fromarray(np.ascontiguousarray(image[3:134, 200:637:3]))
        yield PIL.Image.fromarray(np.ascontiguousarray(image[::5, 17:300]))


@pytest.fixture(scope="module")
def ours(detector_run, detector_data, tmp_path_factory):
    """A run of a DETR of ours with a file with preprocessing, and the entry of that file."""
    folder = tmp_path_factory.mktemp("detectors") / "run"
    shutil.copytree(detector_run.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "logs"))
    return folder, export(folder, "onnx", with_preprocessing=True, data=detector_data).record


@pytest.fixture(scope="module")
def detector(request, randomised, tmp_path_factory):
    """Folder of a detector, ours or of a model type of transformers, with a file with preprocessing, and its entry.

    With the weights that it starts with, RT-DETR would choose its queries among equal scores.
    """
    if request.param == "ours":
        return request.getfixturevalue("ours")
    folder = tmp_path_factory.mktemp("detectors") / request.param
    randomised(tiny_detector(request.param)).save_pretrained(folder)
    tiny_processor(request.param).save_pretrained(folder)
    return folder, export(folder, "onnx", with_preprocessing=True).record


@pytest.mark.parametrize("detector", ["ours", "rt_detr", *(OTHERS if LONG else ())], indirect=True)
def test_the_boxes_of_raw_pixels_are_those_of_the_pipeline(detector):
    folder, record = detector
    assert record["outputs"] == ["boxes", "scores", "labels", "logits", "pred_boxes"]
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    session = onnxruntime.InferenceSession(str(folder / "onnx" / "model_pixels.onnx"))
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[3]) == ("image", "tensor(uint8)", 3)
    exported = vithub.load_exported(folder, "onnx")
    of_file = pipeline("object-detection", model=exported, image_processor=exported.image_processor)
    of_weights = pipeline("object-detection", model=model, image_processor=processor)
    for image in photos():
        scores = sorted(entry["score"] for entry in of_weights(image, threshold=0.0))
        gap = int(np.diff(scores).argmax())
        least = (scores[gap] + scores[gap + 1]) / 2  # between some boxes and the others, far from both
        wanted = of_weights(image, threshold=least)
        boxes, scores, labels = session.run(["boxes", "scores", "labels"], {"image": np.asarray(image)[None]})
        shown = scores[0] > least
        found = [
            {"label": model.config.id2label[int(label)], "score": float(score), "box": box}
            for box, score, label in zip(boxes[0][shown], scores[0][shown], labels[0][shown], strict=True)
        ]
        same_boxes(found, wanted)
        piped = of_file(image, threshold=least)
        same_boxes([{**entry, "box": np.array(list(entry["box"].values()))} for entry in piped], wanted)


def same_boxes(found, wanted):
    """Each box of one list is in the other, up to what rounding of pixels changes."""
    assert len(found) == len(wanted)
    for entry in wanted:
        corners = np.array([entry["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")])
        assert any(
            other["label"] == entry["label"]
            and abs(other["score"] - entry["score"]) < 0.02
            and np.abs(other["box"] - corners).max() < 3
            for other in found
        )


def test_evaluation_and_prediction_of_a_detector_feed_raw_pixels(ours, detector_data, tmp_path, monkeypatch, capsys):
    folder, record = ours
    assert record["accuracy"]["exported"] == pytest.approx(record["accuracy"]["source"], abs=0.01)
    of_weights, of_file = (
        vithub.evaluate(folder, detector_data, backend=backend)["metrics"]["map_50"] for backend in ("torch", "onnx")
    )
    assert of_file == pytest.approx(of_weights, abs=0.01)
    photo = tmp_path / "photo.png"
    detector_data[1]["image"].save(photo)
    (wanted,), (found,) = (
        vithub.predict(folder, photo, threshold=0.2, backend=backend) for backend in ("torch", "onnx")
    )
    assert [entry["label"] for entry in found["predictions"]] == [entry["label"] for entry in wanted["predictions"]]
    for one, other in zip(wanted["predictions"], found["predictions"], strict=True):
        assert other["box"] == pytest.approx(one["box"], abs=1.0)
    model = vithub.load_exported(folder, "onnx")
    with pytest.raises(ValueError, match=r"takes uint8 pixels \(batch, 3, height, width\), got float32 \(1, 3, 9, 9\)"):
        model(pixel_values=torch.zeros(1, 3, 9, 9))
    card = (folder / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    detector_data[1]["image"].save("photo.jpg")
    for block in re.findall(r"```python\n(.*?)```", card[card.index("## Other forms") :], re.DOTALL)[:2]:
        exec(compile(block, "card", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    names = vithub.load(folder).config.id2label.values()
    assert printed[-1].startswith("[")  # of `pipeline`
    assert all(line.startswith(tuple(names)) for line in printed[:-1])


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """A detector in ONNX that looks at an image's mean colour: 6 queries, 3 classes and no object."""
    draws, part = np.random.default_rng(0), Nodes("model/")
    pooled = part.add("GlobalAveragePool", "pooled", "pixel_values")
    colour = part.add("Reshape", "colour", pooled, part.constant("flat", 0, -1))
    for name, size in (("logits", 4), ("pred_boxes", 4)):
        part.constants[f"model/{name}_weights"] = draws.normal(size=(3, 6 * size)).astype(np.float32) * 3
        found = part.add("MatMul", f"{name}_flat", colour, f"model/{name}_weights")
        found = part.add("Sigmoid", "shares", found) if name == "pred_boxes" else found
        part.add("Reshape", name, found, part.constant(f"{name}_shape", 0, 6, size), result=True)
    file = tmp_path_factory.mktemp("plain") / "model.onnx"
    outputs = [described(name, "FLOAT", ["batch", 6, 4]) for name in ("logits", "pred_boxes")]
    write_part(file, part, [described("pixel_values", "FLOAT", ["batch", 3, "height", "width"])], outputs)
    return file


@pytest.mark.parametrize("fault", [None, "mean", "longest_edge", "num_labels", "boxes"])
def test_a_planted_fault_is_noticed(plain_file, tmp_path, monkeypatch, fault):
    processor = build_box_processor(64, 96)
    steps, reading = pixel_steps(processor, any_size=True), box_reading(processor, 6, 4, 3)
    if fault in ("mean", "longest_edge"):
        steps = replace(steps, **{"mean": {"mean": (0.0, 0.0, 0.0)}, "longest_edge": {"longest_edge": 90}}[fault])
    if fault == "num_labels":
        other, made = replace(reading, no_object=False, num_labels=4), in_graph.add_preprocessing
        monkeypatch.setattr(in_graph, "add_preprocessing", lambda *given: made(*given[:3], other))
    if fault == "boxes":  # in pixels of the resized image in place of the given one
        monkeypatch.setattr(in_graph, "size_nodes", lambda _: size_of("preprocessing/resized_levels"))
    message = {"num_labels": "that differ by inf", "boxes": "that differ by inf"}.get(fault, "cannot express Detr")
    if fault is None:
        found = preprocess_in_graph(plain_file, tmp_path / "whole.onnx", steps, processor, reading)
        assert found["probabilities"] < 0.01
        return
    with pytest.raises(BackendError, match=message):
        preprocess_in_graph(plain_file, tmp_path / "whole.onnx", steps, processor, reading)


def size_of(levels):
    """Size of what `levels` (B, 3, height, width) names, in place of that of the given image."""
    part = Nodes("given/")
    part.add("Cast", "image_size", part.add("Shape", "sides", levels, start=2), to=1, result=True)
    return part


def test_all_fields_of_a_reading_are_found():
    reading = box_reading(RTDetrImageProcessor(), 9, 3, 3)
    assert (reading.no_object, reading.most, reading.num_labels) == (False, 9, 3)
    assert box_reading(ConditionalDetrImageProcessor(), 40, 3, 3).most == 100
    assert box_reading(DetrImageProcessor(), 12, 4, 3) == BoxReading(3, True, 12, None)
