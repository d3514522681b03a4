"""Detectors of any kind on the demo page: found by what they answer with, not by the fields of one family."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor
from vithub.interpretability.demo.boxes import boxes_html
from vithub.interpretability.demo.model import DemoModel

import vithub

LABELS = {0: "rose", 1: "<b>tulip</b>", 2: "daisy"}


@pytest.fixture(scope="module")
def yolos():
    """A detector whose queries are tokens beside the patches; it is sure of a tulip everywhere."""
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=[64, 64],
        patch_size=16, num_detection_tokens=5, id2label=LABELS,
    )  # fmt: skip
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        model.class_labels_classifier.layers[-1].bias.copy_(torch.tensor([0.0, 6.0, 0.0, 0.0]))
    return DemoModel("yolos", model, YolosImageProcessor(size={"height": 64, "width": 64}))


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@torch.no_grad()
def test_a_detector_without_a_number_of_queries_answers_with_the_boxes_of_its_processor(yolos, photo):
    assert yolos.is_detector
    seen = yolos.look(photo)
    assert seen.scores == []
    outputs = yolos.model(yolos.image_processor(photo, return_tensors="pt")["pixel_values"])
    (expected,) = yolos.image_processor.post_process_object_detection(outputs, threshold=0.5, target_sizes=[(1, 1)])
    assert len(seen.detections) == len(expected["scores"]) == 5
    order = expected["scores"].argsort(descending=True).tolist()
    for found, place in zip(seen.detections, order, strict=True):
        assert found.label == LABELS[int(expected["labels"][place])]
        assert found.score == pytest.approx(float(expected["scores"][place]), abs=1e-6)
        box = torch.tensor([found.left, found.top, found.right, found.bottom])
        torch.testing.assert_close(box, expected["boxes"][place].clamp(0, 1), atol=1e-6, rtol=0)


def test_boxes_without_maps_are_shown_alone_and_the_page_says_so(yolos, photo):
    seen = yolos.look(photo)
    maps = yolos.query_maps(seen)
    assert maps is None
    page = boxes_html(seen.picture, seen.detections, maps)
    assert page.count("<button") == 5
    assert 'class="map"' not in page
    assert "no maps of where its queries looked" in page
    assert "<b>" not in page


def test_a_detector_of_ours_keeps_its_maps_and_a_classifier_is_none(tiny, tiny_detr, photo):
    torch.manual_seed(0)
    detector = vithub.HubDetrForObjectDetection(tiny_detr())
    with torch.no_grad():
        detector.class_labels_classifier.bias.copy_(torch.tensor([0.0, 6.0, 0.0, 0.0]))
    shown = DemoModel("detr", detector, YolosImageProcessor(size={"height": 64, "width": 64}))
    seen = shown.look(photo)
    maps = shown.query_maps(seen)
    assert len(maps) == len(seen.detections) > 0
    assert boxes_html(seen.picture, seen.detections, maps).count('class="map"') == len(maps)
    small = YolosImageProcessor(size={"height": 32, "width": 32})
    for model, has_head in ((vithub.HubViTForImageClassification(tiny()), True), (vithub.HubViTModel(tiny()), False)):
        shown = DemoModel("vit", model, small)
        assert not shown.is_detector
        assert shown.has_head is has_head
