"""`vithub explain`: pictures, page and JSON of the folder it leaves, and what it refuses."""

import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import BitImageProcessorPil
from vithub.scripts.command_line import app, run
from vithub.scripts.explain_progress import ExplainProgress
from vithub.training.runtime.progress import QuietReporter

import vithub
from vithub import EXPLANATION_METHODS


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command as a shell would, and gives exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vithub", "explain", *map(str, arguments)])
        code = run(app)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def saved(tmp_path, tiny, randomised):
    """A saved ViT of five labels, one of which is no harmless text."""
    torch.manual_seed(0)
    names = ["cat", "dog", "<script>alert(1)</script>", "owl & ape", "eel"]
    config = tiny(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    folder = tmp_path / "model"
    randomised(vithub.HubViTForImageClassification(config)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two photos, one of which has a name that is no harmless text."""
    files = [tmp_path / "a.jpg", tmp_path / "<b onload=x> & 'c'.png"]
    draws = np.random.default_rng(0)
    for file in files:
        Image.fromarray(draws.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(file)
    return files


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data):
        self.texts.append(data)


def test_all_methods_of_two_photos(command, saved, photos, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = command(saved, *photos, "--method", "all", "--output", out, "--steps", 2)
    assert code == 0
    assert str(out / "report.html") in printed
    data = json.loads((out / "report.json").read_text())
    assert set(data["methods"]) == set(EXPLANATION_METHODS)
    assert [entry["image"] for entry in data["images"]] == [str(photo) for photo in photos]
    model = vithub.load(saved)
    processor = vithub.load_image_processor(saved)
    for entry, photo in zip(data["images"], photos, strict=True):
        assert [e["method"] for e in entry["explanations"]] == list(EXPLANATION_METHODS)
        with Image.open(out / entry["seen"]) as seen, Image.open(photo) as original:
            assert seen.size == (32, 32)
            pixels = processor(original.convert("RGB"), return_tensors="pt")["pixel_values"]
            again = processor(seen, return_tensors="pt", do_resize=False, do_center_crop=False)["pixel_values"]
        assert torch.allclose(pixels, again, rtol=0, atol=0.02), "the picture is what the model saw"
        grid = next(e["grid"] for e in entry["explanations"] if e["method"] == "relevance")
        expected = vithub.explain(model, pixels, "relevance").grid[0]
        assert torch.allclose(torch.tensor(grid), expected, rtol=1e-4, atol=1e-7)
        assert abs(sum(p["score"] for p in entry["predictions"]) - 1) < 1e-5
        for explanation in entry["explanations"]:
            with Image.open(out / explanation["picture"]) as picture:
                assert picture.width > 900, "the map has its legend beside it"
            best = max(entry["predictions"], key=lambda found: found["score"])
            assert explanation["prediction"]["label"] == best["label"]
            assert explanation["prediction"]["probability"] == pytest.approx(best["score"], abs=1e-5)
            assert explanation["scale"]["meaning"] == EXPLANATION_METHODS[explanation["method"]].scale
            assert explanation["scale"]["first_colour"] in ("0", "0 or less")


def test_the_page_stands_alone_and_is_escaped(command, saved, photos, tmp_path):
    out = tmp_path / "out"
    assert command(saved, *photos, "--method", "rollout", "--method", "grad-cam", "--output", out)[0] == 0
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "b", "link", "iframe"} & set(page.tags)
    sources = [attributes["src"] for attributes in page.attributes if "src" in attributes]
    assert len(sources) == 2 * 3
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(attributes.get("alt") for attributes in page.attributes if "src" in attributes)
    assert not any(name.startswith("on") for attributes in page.attributes for name in attributes)
    assert "<script>alert(1)</script>" in " ".join(page.texts), "the label is told, as text"
    assert any(photos[1].name in text for text in page.texts)
    names = [file.name for file in out.iterdir()]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names), names


def test_methods_that_a_cnn_cannot_have_are_named(command, photos, tmp_path):
    folder = tmp_path / "cnn"
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=3), folder, safe_serialization=True)
    out = tmp_path / "out"
    assert command(folder, photos[0], "--method", "all", "--output", out, "--steps", 2)[0] == 0
    (entry,) = json.loads((out / "report.json").read_text())["images"]
    assert set(entry["skipped"]) == {name for name, m in EXPLANATION_METHODS.items() if m.needs_attention}
    assert "Left out: attention, rollout" in (out / "report.html").read_text()


def test_slow_methods_say_how_long_they_take_once_that_is_measured(command, saved, photos, tmp_path):
    options = ("--method", "integrated_gradients", "--method", "occlusion", "--method", "rollout")
    code, _, told = command(saved, *photos, *options, "--output", tmp_path / "out", "--steps", 4, "--batch-size", 1)
    assert code == 0
    lines = [line for line in told.splitlines() if "passes" in line]
    assert [line.split(" passes")[0] for line in lines] == ["integrated_gradients: 4", "occlusion: 16"]
    assert all(
        re.search(r"passes for each of 2 images, about \d+ s \([\d.e-]+ s for one, measured\)", one) for one in lines
    )


def test_the_time_is_that_of_the_first_passes_times_their_number(monkeypatch):
    clock = iter([10.0, 10.5, 11.0, 99.0])
    monkeypatch.setattr("vithub.scripts.explain_progress.time.monotonic", lambda: next(clock))
    told = []

    class Listener(QuietReporter):
        def message(self, text):
            told.append(text)

    progress = ExplainProgress(Listener(), images=3, methods=1)
    for done in range(1, 5):
        progress.on_pass("occlusion", done, 40)
    assert told == ["occlusion: 40 passes for each of 3 images, about 1 min 0 s (0.5 s for one, measured)"]


def test_options_reach_the_methods_that_take_them(command, saved, photos, tmp_path):
    out = tmp_path / "out"
    options = ("--target", "owl & ape", "--layer", 0, "--head", 1, "--token", 5, "--steps", 2)
    assert command(saved, photos[0], "--method", "all", "--output", out, *options)[0] == 0
    (entry,) = json.loads((out / "report.json").read_text())["images"]
    explained = {e["method"]: e["explains"] for e in entry["explanations"]}
    assert all(text.startswith("owl & ape (") for text in explained.values())
    assert explained["attention"].endswith("token 5 · layer 0 · head 1")
    assert explained["grad_cam"].endswith("grad_cam · layer 0")
    assert explained["occlusion"].endswith("occlusion")


BAD = {
    "method": (["--method", "lime"], 2, "--method takes one of auto, all, attention"),
    "target": (["--target", "horse"], 1, "'horse' is no label of the model, whose labels are cat, dog"),
    "target number": (["--target", "5", "--method", "all"], 1, "class from 0 to 4, got 5"),
    "layer": (["--method", "attention", "--layer", "2"], 1, "--layer must lie in 0 to 1"),
    "option": (["--method", "rollout", "--head", "1"], 1, "takes no --head"),
    "query": (["--query", "1"], 1, "this model is a classifier"),
}


@pytest.mark.parametrize(("options", "code", "message"), BAD.values(), ids=BAD)
def test_wrong_use_is_told_in_a_line(options, code, message, command, saved, photos, tmp_path):
    got, _, errors = command(saved, photos[0], "--output", tmp_path / "out", *options)
    assert got == code
    assert message in " ".join(errors.replace("│", " ").split())


def test_a_report_is_not_replaced_unasked(command, saved, photos, tmp_path):
    out = tmp_path / "out"
    assert command(saved, photos[0], "--method", "random", "--output", out)[0] == 0
    code, _, errors = command(saved, photos[0], "--method", "random", "--output", out)
    assert code == 1
    assert "holds a report already" in errors
    assert command(saved, photos[1], "--method", "random", "--output", out, "--overwrite")[0] == 0


def test_a_file_that_is_no_image_is_named(command, saved, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no image")
    code, _, errors = command(saved, file, "--output", tmp_path / "out")
    assert code == 1
    assert "notes.png" in errors
