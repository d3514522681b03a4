"""Answers to many pictures: errors one by one, the agreement of two models, cards, and what is saved."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from vithub.data.image_processing import build_image_processor
from vithub.data.intervals import share_interval
from vithub.hub.any_model import load_any_model
from vithub.hub.calibration import calibration_of
from vithub.interpretability.demo import photos as demo_photos
from vithub.interpretability.demo.answers import agreement, answer_all, answers_json
from vithub.interpretability.demo.cards import MAX_CARDS, cards_html
from vithub.interpretability.demo.model import DemoModel, View
from vithub.interpretability.demo.photos import read_photo
from vithub.interpretability.demo.saving import Shown, saving_links

import vithub

LABELS = {0: "rose", 1: "<b>tulip</b>", 2: "daisy"}
CALIBRATION = {"temperature": 2.5, "fitted_on": "validation", "images": 90}


def model(name, tiny, seed, labels=LABELS, calibration=None):
    torch.manual_seed(seed)
    config = tiny(
        num_labels=len(labels),
        id2label=labels,
        label2id={text: number for number, text in labels.items()},
        initializer_range=0.4,
    )
    classifier = vithub.HubViTForImageClassification(config)
    return DemoModel(name, classifier, build_image_processor((32, 32)), calibration)


@pytest.fixture
def models(tiny):
    return [model("first", tiny, 0), model("<second>", tiny, 1)]


@pytest.fixture
def files(tmp_path):
    """Twelve pictures, and between them one that is no image and one that is cut off."""
    draws, paths = np.random.default_rng(0), []
    for number in range(12):
        path = tmp_path / f"{number:02}<i>.png"
        low, high = sorted(draws.integers(0, 256, 2))
        Image.fromarray(draws.integers(low, high + 1, (40, 60, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:-400])
    return list(map(str, [*paths[:6], tmp_path / "words.jpg", tmp_path / "cut.png", *paths[6:]]))


class Page(HTMLParser):
    """Elements of a fragment with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f"{data} "

    def links(self):
        """Content of the files that can be saved, by name."""
        found = [attributes for tag, attributes in self.elements if tag == "a"]
        return {one["download"]: base64.b64decode(one["href"].partition("base64,")[2]) for one in found}


def test_broken_files_are_named_and_the_others_answered(models, files):
    done = []
    answered = answer_all(models, files, done.append)
    assert done == list(range(1, 15))
    errors = {one.name: one.error for one in answered if one.error}
    assert set(errors) == {"words.jpg", "cut.png"}
    assert errors["words.jpg"] == "words.jpg: not an image in a known format"
    assert errors["cut.png"].startswith("cut.png: ")
    for one in answered:
        if one.error is None:
            for shown, answer in zip(models, one.answers, strict=True):
                best = shown.look(read_photo(one.path)).scores[0]
                assert answer.text == f"{best[0]} {best[1]:.0%}"


def test_agreement_is_counted_over_what_both_answered(models, files):
    answered = answer_all(models, files)
    best = [[model.look(read_photo(path)).scores[0][0] for path in files if "<i>" in path] for model in models]
    found = agreement(models, answered)
    assert (found.same, found.pictures) == (sum(a == b for a, b in zip(*best, strict=True)), 12)
    assert 0 < found.same < 12
    assert [one.name for one in found.differing] == [
        one.name for one in answered if one.answers and one.answers[0].decision != one.answers[1].decision
    ]
    assert found.interval == share_interval(found.same, 12)
    assert agreement(models[:1], answered) is None


def test_agreement_needs_comparable_models(models, tiny, files):
    other = model("other", tiny, 2, {0: "cat", 1: "dog", 2: "owl"})
    headless = DemoModel("none", vithub.HubViTModel(tiny()), build_image_processor((32, 32)))
    for pair, message in (([models[0], other], "no class name in common"), ([models[0], headless], "two classifiers")):
        answered = answer_all(pair, files[:2])
        assert message in agreement(pair, answered).why_not
        page = cards_html(pair, answered)
        assert message in page
        assert "The models differ" not in page


def test_cards_are_escaped_can_be_chosen_and_hold_all_answers(models, files):
    answered = answer_all(models, files)
    page = Page(cards_html(models, answered))
    assert not {"b", "i", "second", "script"} & {tag for tag, _ in page.elements}
    assert "<b>tulip</b>" in page.text
    assert "words.jpg: not an image in a known format" in page.text
    found = agreement(models, answered)
    assert f"first and <second> agree on {found.same} of 12 pictures" in " ".join(page.text.split())
    buttons = [attributes for tag, attributes in page.elements if tag == "button"]
    closer = [b for b in buttons if b["aria-label"].startswith("Look closer")]
    assert [answered[int(button["data-picture"])].name for button in closer] == [
        one.name for one in answered if one.error is None
    ]
    assert len(buttons) - len(closer) == len(found.differing)
    saved = json.loads(page.links()["answers.json"])
    assert saved == answers_json(models, answered)
    assert saved["agreement"]["differing"] == [one.name for one in found.differing]
    assert [bool(entry.get("error")) for entry in saved["pictures"]].count(True) == 2
    assert not re.search(r'(src|href)="(?!data:)', cards_html(models, answered))


def test_many_pictures_have_no_card_but_are_counted(models, files):
    answered = answer_all(models[:1], files[:1]) * (MAX_CARDS + 5)
    text = cards_html(models[:1], answered)
    assert text.count("<li>") == MAX_CARDS
    assert "5 more pictures have no card here" in text
    assert f"{MAX_CARDS + 5} of {MAX_CARDS + 5} pictures answered" in text
    assert cards_html(models, []) == ""


def test_probabilities_are_those_after_temperature_scaling(tiny, files):
    plain, scaled = model("plain", tiny, 0), model("scaled", tiny, 0, calibration=CALIBRATION)
    photo = read_photo(files[0])
    with torch.no_grad():
        logits = plain.model(plain.look(photo).pixel_values).logits[0]
    for shown, temperature in ((plain, 1.0), (scaled, 2.5)):
        expected = (logits / temperature).softmax(dim=-1).sort(descending=True).values.tolist()
        assert [score for _, score in shown.look(photo).scores] == pytest.approx(expected, abs=1e-6)
    assert "not calibrated" in plain.about_probabilities
    assert "temperature 2.50, fitted on the 90 images of the validation split" in scaled.about_probabilities
    scaled.model.config.problem_type = "multi_label_classification"
    expected = sorted((1 / (1 + math.exp(-logit / 2.5)) for logit in logits.tolist()), reverse=True)
    assert [score for _, score in scaled.look(photo).scores] == pytest.approx(expected, abs=1e-6)


def test_an_exported_form_is_calibrated_as_its_record_states(tiny, files, tmp_path):
    """Its probabilities are softmax(logits / T) of the logits that ONNX Runtime computes."""
    shown = model("weights", tiny, 0)
    shown.model.save_pretrained(tmp_path / "model")
    shown.image_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "metrics.json").write_text(json.dumps({"calibration": CALIBRATION}))
    vithub.export(tmp_path / "model", "onnx", output=tmp_path / "scaled")
    vithub.export(tmp_path / "model", "onnx", output=tmp_path / "merged", token_merging=1)
    pages = {}
    for name in ("scaled", "merged"):
        form, processor = load_any_model(tmp_path / name)
        pages[name] = DemoModel(name, form, processor, calibration_of(form, tmp_path / name))
        seen = pages[name].look(read_photo(files[0]))
        exponents = [math.exp(v / (2.5 if name == "scaled" else 1)) for v in form(seen.pixel_values).logits[0].tolist()]
        expected = sorted((value / sum(exponents) for value in exponents), reverse=True)
        assert [score for _, score in seen.scores] == pytest.approx(expected, abs=1e-6)
    assert "temperature 2.50, fitted on the 90 images" in pages["scaled"].about_probabilities
    assert "not calibrated: the temperature is that of the weights, and token merging" in (
        pages["merged"].about_probabilities
    )


def test_what_is_saved_is_what_is_shown(tiny, files):
    shown = model("a/b", tiny, 0, calibration=CALIBRATION)
    seen = shown.look(read_photo(files[0]))
    found = shown.explained(seen, View("relevance", label="daisy"))
    links = Page(saving_links(shown, Shown("photo one.jpg", seen, found))).links()
    assert set(links) == {"photo_one-b-relevance.png", "photo_one-b-relevance.json"}
    with Image.open(io.BytesIO(links["photo_one-b-relevance.png"])) as picture:
        assert picture.width > 900
    saved = json.loads(links["photo_one-b-relevance.json"])
    assert (saved["picture"], saved["model"], saved["calibrated"], saved["temperature"]) == (
        "photo one.jpg",
        "a/b",
        True,
        2.5,
    )
    assert [(one["label"], one["score"]) for one in saved["predictions"]] == seen.scores
    assert saved["map"]["explained"] == "daisy"
    assert torch.allclose(torch.tensor(saved["map"]["grid"]), found.grid[0])
    assert saving_links(shown, None) == ""


def test_a_file_that_is_too_large_or_gone_is_told(models, files, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_photos, "MAX_UPLOAD", 100)
    (large,) = answer_all(models, files[:1])
    assert "larger than" in large.error
    (gone,) = answer_all(models, [str(tmp_path / "gone.png")])
    assert gone.error == "the picture was deleted meanwhile; choose it again"
