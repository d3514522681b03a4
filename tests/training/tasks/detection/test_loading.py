"""Every reader of a detector's output agrees with the post-processing of transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    ConditionalDetrImageProcessor,
    DeformableDetrImageProcessor,
    DetrImageProcessor,
    RTDetrImageProcessor,
    YolosImageProcessor,
)
from transformers.utils import ModelOutput
from vithub.data.boxes.dataset import build_box_processor
from vithub.interpretability.demo.model import DemoModel
from vithub.interpretability.explanation.targets import choose
from vithub.training.tasks.detection.loading import read_outputs

import vithub

EXCLUSIVE = (DetrImageProcessor, YolosImageProcessor)
INDEPENDENT = (ConditionalDetrImageProcessor, DeformableDetrImageProcessor, RTDetrImageProcessor)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return Image.fromarray(pixels)


@pytest.fixture(params=[(focal, count) for focal in (False, True) for count in (1, 3)], ids=str)
def detector(request, tiny_detr, randomised, photo, tmp_path):
    """A saved detector that finds several objects in any picture, loaded, and its image processor."""
    focal, count = request.param
    labels = {number: f"class {number}" for number in range(count)}
    model = vithub.HubDetrForObjectDetection(tiny_detr(id2label=labels, focal_loss=focal, num_labels=count))
    randomised(model)
    processor = build_box_processor(64, 64, focal=focal)
    with torch.no_grad():  # the scores of the queries on the photo lie around one half
        head = model.class_labels_classifier
        logits = model(**processor(photo, return_tensors="pt")).logits[0]
        head.weight.mul_(2 / logits.std(0)[:, None])
        head.bias.sub_(model(**processor(photo, return_tensors="pt")).logits[0].mean(0))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return model, processor, tmp_path


def answers(model, processor, photo):
    with torch.no_grad():
        return model(**processor(photo, return_tensors="pt"))


def expected(model, processor, photo, threshold):
    sizes = [(photo.height, photo.width)]
    (read,) = processor.post_process_object_detection(answers(model, processor, photo), threshold, sizes)
    order = read["scores"].argsort(descending=True)
    return {name: values[order] for name, values in read.items()}


def test_predicted_boxes_are_those_of_transformers(detector, photo):
    model, processor, folder = detector
    read = expected(model, processor, photo, 0.3)
    (prediction,) = vithub.predict(folder, [folder / "photo.png"], threshold=0.3)
    found = prediction["predictions"]
    assert len(found) > 0
    assert [entry["label"] for entry in found] == [model.config.id2label[int(n)] for n in read["labels"]]
    assert [entry["score"] for entry in found] == pytest.approx(read["scores"].tolist(), abs=1e-5)
    within = read["boxes"].clamp(min=torch.zeros(4), max=torch.tensor([64.0, 48.0] * 2))
    torch.testing.assert_close(torch.tensor([entry["box"] for entry in found]), within, atol=6e-3, rtol=0)


def test_the_page_shows_the_boxes_of_transformers(detector, photo):
    model, processor, _ = detector
    read = expected(model, processor, photo, 0.5)
    found = DemoModel("detector", model, processor).look(photo).detections
    assert len(found) == min(20, len(read["scores"])) > 0
    assert [box.label for box in found] == [model.config.id2label[int(n)] for n in read["labels"][:20]]
    assert [box.score for box in found] == pytest.approx(read["scores"][:20].tolist(), abs=1e-6)
    shown = torch.tensor([[box.left, box.top, box.right, box.bottom] for box in found])
    fractions = (read["boxes"] / torch.tensor([64.0, 48.0] * 2)).clamp(0, 1)
    torch.testing.assert_close(shown, fractions[:20], atol=1e-5, rtol=0)


def test_the_query_that_is_explained_is_the_surest_of_transformers(detector, photo):
    model, processor, _ = detector
    read = expected(model, processor, photo, 0.0)
    output = answers(model, processor, photo)
    choice = choose(model, output.logits)
    assert int(choice.labels) == int(read["labels"][0])
    assert float(choice.probabilities) == pytest.approx(float(read["scores"][0]), abs=1e-6)
    x, y, width, height = output.pred_boxes[0, int(choice.queries)].tolist()
    corners = [(x - width / 2) * 64, (y - height / 2) * 48, (x + width / 2) * 64, (y + height / 2) * 48]
    assert corners == pytest.approx(read["boxes"][0].tolist(), abs=1e-3)


@given(
    kind=st.sampled_from(EXCLUSIVE + INDEPENDENT), classes=st.integers(1, 4), queries=st.integers(1, 150),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_any_output_is_read_as_by_the_processor_of_its_kind(kind, classes, queries, seed):
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, queries, classes + (kind in EXCLUSIVE), generator=draws) * 3
    output = ModelOutput(logits=logits, pred_boxes=torch.rand(2, queries, 4, generator=draws))
    sizes = torch.tensor([[480, 640], [37, 21]])
    processor = kind()
    for read, found in zip(
        processor.post_process_object_detection(output, threshold=-1.0, target_sizes=sizes),
        read_outputs(processor, ModelOutput(**output), sizes, classes),
        strict=True,
    ):
        order = read["scores"].argsort(descending=True, stable=True).tolist()
        labels = read["labels"].tolist()
        kept = [place for number, place in enumerate(order)
                if [labels[other] for other in order[:number]].count(labels[place]) < 100]  # fmt: skip  # COCO's most
        np.testing.assert_allclose(found.scores, read["scores"][kept].double(), atol=1e-7)
        np.testing.assert_array_equal(found.classes, read["labels"][kept])
        np.testing.assert_allclose(found.boxes, read["boxes"][kept].double(), atol=1e-4)


def test_another_number_of_scores_is_refused():
    output = ModelOutput(logits=torch.zeros(1, 2, 6), pred_boxes=torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="gives 6 scores per query for 3 classes"):
        read_outputs(DetrImageProcessor(), output, torch.tensor([[10, 10]]), 3)
