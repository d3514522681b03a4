"""The demo page as a person meets it: the real command, in a headless browser."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from demo_visit import Server, Visit, serve
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig
from vithub.data.image_processing import build_image_processor
from vithub.data.images import BadImageError
from vithub.deployment.exporting import export
from vithub.hub.any_model import load_any_model
from vithub.interpretability.demo import photos as demo_photos
from vithub.interpretability.demo.answers import agreement, answer_all
from vithub.interpretability.demo.model import DemoModel
from vithub.interpretability.demo.page import DemoError, build_page
from vithub.interpretability.demo.photos import read_photo
from vithub.interpretability.demo.space import write_space

import vithub

if not os.environ.get("VITHUB_NEEDS_BROWSER"):  # with it, a missing library fails the tests
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    pytest.importorskip("playwright", reason="the page is tested with playwright")
LABELS = {0: "rose", 1: "<b>tulip</b>", 2: "daisy"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two tiny classifiers and a tiny detector that finds something, saved."""
    root = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = vithub.HubDeiTConfig(**sizes, id2label=LABELS, initializer_range=0.4)
        vithub.HubDeiTForImageClassification(config).save_pretrained(root / name)
        build_image_processor((32, 32)).save_pretrained(root / name)
    backbone = ResNetConfig(depths=[1, 1], hidden_sizes=[8, 16], embedding_size=8, layer_type="basic",
                            out_features=["stage2"])  # fmt: skip
    config = DetrConfig(
        backbone_config=backbone, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=3, id2label=LABELS,
    )  # fmt: skip
    detector = DetrForObjectDetection(config)
    with torch.no_grad():
        detector.class_labels_classifier.bias.copy_(torch.tensor([0.0, 6.0, 0.0, 0.0]))
    detector.save_pretrained(root / "detector")
    DetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(root / "detector")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A picture that shows something, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[0:240, 0:320]
    disc = ((rows - 120) ** 2 + (columns - 160) ** 2 < 70**2)[..., None]
    pixels = np.where(disc, (220, 40, 60), np.stack([rows // 2, 90 + columns // 4, 60 + rows // 4], -1))
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "disc.png")
    (folder / "broken.jpg").write_bytes(b"this is no picture")
    return folder


def test_a_picture_is_answered_and_its_map_follows_the_controls(browser, folders, photos):
    with serve(folders / "first", "--examples", photos / "disc.png") as server:
        visit = Visit(browser, server.url)
        visit.upload(photos / "disc.png")
        shown = visit.overlay()
        answer = visit.answer()
        assert "<b>tulip</b>" in answer  # escaped: as text, not as markup
        assert visit.page.locator("#model0-answer b").count() == 0
        expected = vithub.predict(folders / "first", [photos / "disc.png"])
        best = expected[0]["predictions"][0]
        assert f"{best['label']}\n{best['score']:.0%}".replace("%", "") in answer.replace("%", "")

        assert visit.page.input_value("#model0-method input") == "Attention relevance"  # as `explain` takes by itself
        visit.page.click("#model0-method input")
        visit.page.get_by_role("option", name="Raw attention").click()
        shown = visit.overlay(other_than=shown)
        visit.page.fill("#model0-layer input[type=number]", "0")
        visit.page.press("#model0-layer input[type=number]", "Enter")
        first_layer = visit.overlay(other_than=shown)
        visit.page.focus("#model0-head input[type=range]")
        visit.page.keyboard.press("ArrowRight")  # by keyboard alone
        one_head = visit.overlay(other_than=first_layer)
        visit.page.click("#model0-overlay img", position={"x": 40, "y": 40})
        visit.page.wait_for_function(
            "document.querySelector('#model0-patch textarea, #model0-patch input').value !== ''"
        )
        patch = visit.page.input_value("#model0-patch textarea, #model0-patch input")
        assert re.fullmatch(r"\d, \d", patch)
        of_patch = visit.overlay(other_than=one_head)
        visit.page.click("#model0-cls")
        visit.overlay(other_than=of_patch)
        visit.page.click("#model0-method input")
        visit.page.get_by_role("option", name="Occlusion").click()
        visit.page.wait_for_function("document.querySelector('#model0-about').innerText.includes('greyed')")
        visit.page.wait_for_selector("#model0-head", state="hidden")
        visit.close("demo_page")
    assert server.code in (0, 130), server.output  # interrupted while it waits, or while it answers
    assert "Traceback" not in server.output


def test_a_broken_file_gets_a_message_and_the_page_goes_on(browser, folders, photos):
    with serve(folders / "first") as server:
        visit = Visit(browser, server.url)
        visit.upload(photos / "broken.jpg")
        # read where it is found: it goes away by itself after some seconds
        message = visit.page.wait_for_function("document.querySelector('.toast-body')?.innerText").json_value()
        assert "broken.jpg: not an image in a known format" in message
        visit.close()
        visit = Visit(browser, server.url)  # a visit of its own: a reload cuts the first one's stream, which complains
        visit.upload(photos / "disc.png")
        visit.overlay()
        visit.close("demo_broken_file")


def test_two_models_answer_side_by_side(browser, folders, photos):
    with serve(folders / "first", folders / "second") as server:
        visit = Visit(browser, server.url)
        visit.upload(photos / "disc.png")
        visit.overlay(model=0)
        visit.overlay(model=1)
        assert visit.answer(0) != visit.answer(1)
        assert visit.pixels(0) != visit.pixels(1)
        visit.close("demo_two_models")


def test_several_pictures_are_answered_and_two_models_compared(browser, folders, photos, tmp_path):
    metrics = {"calibration": {"temperature": 2.0, "fitted_on": "validation", "images": 40}}
    (folders / "second" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "huge.png").write_bytes(bytes(demo_photos.MAX_UPLOAD + 2**20))
    chosen = [photos / "disc.png", photos / "broken.jpg", tmp_path / "huge.png"]
    draws = np.random.default_rng(0)
    for number in range(4):
        chosen.append(tmp_path / f"noise{number}.png")
        Image.fromarray(draws.integers(0, 40 + 70 * number, (40, 60, 3), dtype=np.uint8)).save(chosen[-1])
    models = [DemoModel(name, *load_any_model(folders / name)) for name in ("first", "second")]
    found = agreement(models, answer_all(models, list(map(str, chosen))))
    with serve(
        folders / "first",
        folders / "second",
        "--examples",
        photos / "disc.png",
        "--examples",
        tmp_path / "noise0.png",
    ) as server:
        visit = Visit(browser, server.url)
        assert "not calibrated" in visit.page.inner_text("#model0-calibration")
        assert "temperature 2.00, fitted on the 40 images" in visit.page.inner_text("#model1-calibration")
        visit.page.set_input_files("#pictures input[type=file]", list(map(str, chosen)))
        visit.page.wait_for_selector("#cards .vithub-cards li")
        text = " ".join(visit.page.inner_text("#cards").split())
        assert "5 of 7 pictures answered; 2 could not be read" in text
        assert f"first and second agree on {found.same} of 5 pictures" in text
        assert "broken.jpg: not an image in a known format" in text
        assert "huge.png: 21 MiB, larger than 20 MiB" in text
        visit.page.focus("#cards button[aria-label='Look closer at noise3.png']")
        visit.page.keyboard.press("Enter")  # by keyboard alone
        visit.overlay(model=0)
        visit.overlay(model=1)  # until then the answer shows the progress
        second = visit.answer(1)
        best = DemoModel("second", *load_any_model(folders / "second"), metrics["calibration"])
        label, score = best.look(read_photo(chosen[-1])).scores[0]
        assert f"{label}\n{100 * score:.0f}%" in second
        for number, kind in enumerate(("png", "json")):
            with visit.page.expect_download() as download:
                visit.page.locator("#model0-save a").nth(number).click()
            assert download.value.suggested_filename == f"noise3-first-relevance.{kind}"
        saved = json.loads(Path(download.value.path()).read_text())
        assert saved["predictions"][0]["label"] in LABELS.values()
        visit.page.click("#all-examples")
        visit.page.wait_for_function("document.querySelector('#cards').innerText.includes('2 of 2 pictures answered')")
        visit.look_at_schemes("demo_several")
        visit.close("demo_several")
    assert "Traceback" not in server.output


def test_real_models_look_at_a_real_photo(browser, real_files, tmp_path):
    """A backbone without a head beside a CNN; the photo is one that scikit-learn ships (dany13, CC BY 2.0)."""
    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.jpg")
    weights = real_files / "weights"
    with serve(weights / "vit_small_patch14", weights / "tf_efficientnet_lite0") as server:
        visit = Visit(browser, server.url)
        visit.upload(tmp_path / "flower.jpg")
        visit.overlay(model=0)
        visit.overlay(model=1)
        assert not visit.page.locator("#model0-answer").is_visible()
        assert not visit.page.locator("#model1-head").is_visible()
        best = vithub.predict(weights / "tf_efficientnet_lite0", tmp_path / "flower.jpg")[0]["predictions"][0]
        assert best["label"] in visit.answer(1)
        visit.close("demo_real_models")


def test_boxes_show_where_their_query_looked(browser, folders, photos):
    with serve(folders / "detector") as server:
        visit = Visit(browser, server.url)
        visit.upload(photos / "disc.png")
        visit.page.wait_for_selector("#model0-boxes .box")
        boxes = visit.page.locator("#model0-boxes .box")
        assert boxes.count() == 3
        assert "<b>tulip</b>" in boxes.first.inner_text()
        opacity = "element => getComputedStyle(element.nextElementSibling).opacity"
        assert float(boxes.nth(1).evaluate(opacity)) == 0
        boxes.nth(1).dispatch_event("mouseover")
        visit.page.keyboard.press("Tab")
        boxes.nth(1).focus()
        visit.page.keyboard.press("Shift+Tab")
        visit.page.keyboard.press("Tab")
        assert boxes.nth(1).evaluate("element => element === document.activeElement")
        visit.page.wait_for_function("() => getComputedStyle(document.activeElement.nextElementSibling).opacity > 0.5")
        visit.close("demo_detector")


def test_exported_forms_answer_and_say_why_there_are_no_maps(browser, folders, photos):
    for name in ("first", "detector"):
        export(folders / name, "openvino")
    with serve(folders / "first", folders / "detector", "--backend", "openvino") as server:
        visit = Visit(browser, server.url)
        visit.upload(photos / "disc.png")
        visit.page.wait_for_selector("#model1-boxes .box")
        wanted = [DemoModel("weights", *load_any_model(folders / name)) for name in ("first", "detector")]
        classes, boxes = (model.look(read_photo(photos / "disc.png")) for model in wanted)
        answer = visit.page.inner_text("#model0-answer")
        assert f"{classes.scores[0][0]}" in answer
        assert f"{100 * classes.scores[0][1]:.0f}%" in answer
        shown = visit.page.locator("#model1-boxes .box")
        assert shown.all_inner_texts() == [f"{box.label} {box.score:.0%}" for box in boxes.detections]
        for number in (0, 1):
            line = visit.page.inner_text(f"#model{number}-unexplained")
            assert "an exported form (openvino, fp32), which cannot be explained" in line
            assert "\n" not in line.strip()
            assert not visit.page.locator(f"#model{number}-overlay, #model{number}-method").first.is_visible()
        visit.close("demo_exported")
    assert "Traceback" not in server.output


def test_a_space_serves_the_same_page_without_this_package(browser, folders, photos, tmp_path):
    space = write_space(tmp_path / "space", [folders / "first"], [photos / "disc.png"])
    assert "gradio>=6" in (space / "requirements.txt").read_text().splitlines()
    assert not list(space.rglob("*.pyc"))
    launcher = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
        "sys.path.insert(0, '.'); import vithub; assert 'space' in vithub.__file__, vithub.__file__; "
        "import runpy; sys.argv = ['app.py']; runpy.run_path('app.py', run_name='__main__')"
    )
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(processes.free_port())}

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-c", launcher], stdout=out, stderr=out, start_new_session=True, cwd=space,
            env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as for a job in front
        )  # fmt: skip

    with Server(start) as server:
        visit = Visit(browser, server.url.replace("0.0.0.0", "127.0.0.1"))
        visit.upload(photos / "disc.png")
        visit.overlay()
        assert "rose" in visit.page.inner_text("#model0-answer")
        visit.close()


def test_the_rooms_of_a_space_are_those_of_the_package():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {name.split(".")[1] for name in project["tool"]["setuptools"]["packages"] if "." in name}
    from vithub.interpretability.demo.space import _ROOMS

    assert set(_ROOMS) == rooms - {"scripts"}


def test_uploads_are_limited_in_size_and_pixels(tmp_path, monkeypatch):
    Image.new("RGB", (300, 200)).save(tmp_path / "photo.png")
    assert read_photo(tmp_path / "photo.png").size == (300, 200)
    monkeypatch.setattr(demo_photos, "MAX_PIXELS", 50_000)
    with pytest.raises(BadImageError, match=r"photo\.png: 300 x 200 pixels, more than 0 million"):
        read_photo(tmp_path / "photo.png")
    (tmp_path / "large.png").write_bytes(bytes(demo_photos.MAX_UPLOAD + 1))
    with pytest.raises(BadImageError, match=r"large\.png: 20 MiB, larger than 20 MiB"):
        read_photo(tmp_path / "large.png")
    with pytest.raises(BadImageError, match="choose a picture first"):
        read_photo(None)


def test_one_model_or_two_and_a_new_folder(folders, tmp_path):
    with pytest.raises(DemoError, match="one model, or two side by side, got 0"):
        build_page([])
    with pytest.raises(DemoError, match="exists; name a new folder"):
        write_space(tmp_path, [folders / "first"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DemoError, match=r"empty has no config.json and no model.safetensors"):
        write_space(tmp_path / "space", [tmp_path / "empty"])
