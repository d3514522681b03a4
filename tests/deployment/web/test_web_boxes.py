"""The static page of a detector draws the boxes that its files find."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch
from sklearn.datasets import load_sample_images
from transformers import DetrImageProcessor
from vithub.deployment.exporting import export
from web_visit import SCREENSHOTS, Visit, vithub_image

import vithub

LABELS = {0: "rose", 1: "<b>tulip</b>", 2: "daisy"}


@pytest.fixture(scope="module")
def detector(tiny_detr, randomised, tmp_path_factory):
    """A tiny DETR whose scores lie on both sides of one half."""
    folder = tmp_path_factory.mktemp("models") / "shapes"
    model = randomised(vithub.HubDetrForObjectDetection(tiny_detr(id2label=LABELS)))
    processor = DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    photo = PIL.Image.fromarray(load_sample_images().images[0])
    pixels = processor(photo, return_tensors="pt")["pixel_values"]
    head = model.class_labels_classifier
    with torch.no_grad():
        (logits,) = model(pixel_values=pixels).logits
        scale = 2 / float(logits.std(0).mean())
        head.bias.copy_(scale * (head.bias - logits.mean(0)))
        head.weight.mul_(scale)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector_page(detector, runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "detector"
    export(detector, "onnx", web=True, web_runtime=runtime, output=folder)
    return folder


DRAWN = """places => {
    const sides = box => ["x", "y", "width", "height"].map(side => +box.getAttribute(side));
    const boxes = place => [...place.querySelectorAll("rect.box")].map(sides);
    return Object.fromEntries(places.map(place => [place.dataset.name, boxes(place)]));
}"""


def test_the_boxes_on_the_page_are_those_of_its_files(browser, detector_page, photos):
    """The files compute the same in Python, from pixels decoded there, to a rounding.

    That a detector's file finds the boxes of `pipeline` is tested with the preprocessing, on a trained one: half a
    level of a pixel moves the scores of a steep random model by up to 0.5.
    """
    steps = {
        name: onnxruntime.InferenceSession(detector_page / "onnx" / f"{name}.onnx")
        for name in ("preprocessing", "model", "reading")
    }
    with Visit(browser, detector_page) as visit:
        page = visit.page
        answers = visit.answers(photos)
        assert "refused" in answers["7-broken.jpg"]
        good = [file for file in photos if "broken" not in file.name]
        drawn = page.eval_on_selector_all("#answers > li[data-objects]", DRAWN)
        counts = []
        for file in good:
            objects = json.loads(answers[file.name]["objects"])
            wanted = objects_of(steps, np.asarray(vithub_image(file).convert("RGB")))
            assert [entry["label"] for entry in objects] == [entry["label"] for entry in wanted]
            for field, error in {"score": 1e-3, "box": 0.05}.items():
                found, expected = ([entry[field] for entry in entries] for entries in (objects, wanted))
                np.testing.assert_allclose(found, expected, atol=error, rtol=0)
            shown = [entry for entry in objects if entry["score"] >= 0.5]
            counts.append(len(shown))
            corners = [[x, y, x + width, y + height] for x, y, width, height in reversed(drawn[file.name])]
            np.testing.assert_allclose(corners, [entry["box"] for entry in shown] or np.zeros((0,)), atol=0.01)
            table = page.get_by_role("table", name=f"Objects of {file.name}, highest score first")
            assert table.get_by_role("rowheader").all_inner_texts() == [entry["label"] for entry in shown]
        assert 0 < sum(counts) < sum(len(json.loads(answers[file.name]["objects"])) for file in good)
        # the slider, by keyboard
        slider = page.get_by_label("Least score of a box that is shown")
        slider.focus()
        page.keyboard.press("Home")
        assert slider.get_attribute("aria-valuetext") == "5 %"
        assert page.locator("#threshold-shown").inner_text() == "5 %"
        more = page.eval_on_selector_all("#answers > li[data-objects]", DRAWN)
        for file in good:
            objects = json.loads(answers[file.name]["objects"])
            assert len(more[file.name]) == sum(entry["score"] >= 0.05 for entry in objects)
        status = page.get_by_role("status").inner_text()
        assert all(f"{file.name}: " in status for file in good)
        page.keyboard.press("End")
        assert any("no object" in part for part in page.get_by_role("status").inner_text().split(". "))
        assert visit.strangers() == []
        assert visit.sent == []
        assert visit.complaints == []
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / "web_boxes.png", full_page=True)
    assert vithub.load_exported(detector_page).config.id2label == LABELS


def objects_of(steps, levels):
    """All boxes that the page's three files find in an image (height, width, 3), highest score first."""
    (pixels,) = steps["preprocessing"].run(None, {"image": levels[None]})
    names = ("logits", "pred_boxes")
    outputs = dict(zip(names, steps["model"].run(names, {"pixel_values": pixels}), strict=True))
    size = np.array(levels.shape[:2], np.float32)
    boxes, scores, labels = steps["reading"].run(("boxes", "scores", "labels"), outputs | {"image_size": size})
    return [
        {"score": float(score), "label": LABELS[int(label)], "box": box.tolist()}
        for score, label, box in zip(scores[0], labels[0], boxes[0], strict=True)
    ]
