"""The static page classifies in the visitor's browser as `pipeline` does here, and asks nobody else for anything."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import web_packages
from datasets import Image, load_dataset
from patience import LONG
from sklearn.datasets import load_sample_images
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
from vithub.data.image_processing import build_image_processor
from vithub.deployment.exporting import export
from vithub.deployment.web.web_runtime import RUNTIME
from vithub.hub.exported.forms import BackendError
from web_visit import Visit, vithub_image

import vithub

LABELS = {0: "rose", 1: "<b>tulip</b>", 2: "daisy"}
CALIBRATION = {"temperature": 1.6, "fitted_on": "validation", "images": 90}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A tiny DeiT that answers different images differently."""
    folder = tmp_path_factory.mktemp("models") / "flowers"
    torch.manual_seed(0)
    config = vithub.HubDeiTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, id2label=LABELS,
        initializer_range=0.4,
    )  # fmt: skip
    vithub.HubDeiTForImageClassification(config).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps({"calibration": CALIBRATION}))
    return folder


@pytest.fixture(scope="module")
def page_folder(classifier, runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "page"
    export(classifier, "onnx", web=True, web_runtime=runtime, output=folder)
    return folder


def compared(model_folder, answers, files):
    """Share of equal decisions of the page and of `pipeline`, and the largest difference of a probability.

    The page divides the logits by the temperature, which raises the probabilities to the power of its inverse.
    """
    model, processor = vithub.load(model_folder).eval(), AutoImageProcessor.from_pretrained(model_folder)
    classify = pipeline("image-classification", model=model, image_processor=processor, top_k=None)
    same, differences = [], []
    for file in files:
        powers = {
            entry["label"]: entry["score"] ** (1 / CALIBRATION["temperature"]) for entry in classify(vithub_image(file))
        }
        wanted = {label: power / sum(powers.values()) for label, power in powers.items()}
        found = answers[file.name]
        same.append(found["label"] == max(wanted, key=wanted.get))
        scores = json.loads(found["scores"])
        differences += [abs(scores[number] - wanted[name]) for number, name in model.config.id2label.items()]
    return np.mean(same), max(differences)


def test_the_page_answers_as_the_pipeline_and_asks_nobody_else(browser, page_folder, classifier, photos):
    with Visit(browser, page_folder) as visit:
        assert visit.page.get_attribute("body", "data-state") == "ready"
        answers = visit.answers(photos)
        good = [file for file in photos if "broken" not in file.name]
        share, difference = compared(classifier, answers, good)
        assert share == 1
        assert difference < 0.02
        assert len({answer["label"] for answer in answers.values() if "label" in answer}) > 1
        assert "refused" in answers["7-broken.jpg"]
        assert visit.strangers() == []
        assert visit.sent == []
        assert visit.complaints == []
        assert all((page_folder / path.lstrip("/")).exists() for path in visit.asked if path.startswith("/"))
        text = visit.page.inner_text("main")
        assert f"{(page_folder / 'onnx' / 'model.onnx').stat().st_size / 1e6:.1f} MB" in text
        assert "calibrated: temperature 1.60, fitted on the 90 images of the validation split" in text
        assert "640 x 427 pixels" in text
        assert "427 x 640 pixels" in text  # turned as its EXIF data says
        assert all(float(answer["seconds"]) > 0 for answer in answers.values() if "label" in answer)
        assert "<b>tulip</b>" in text  # shown as text


def test_the_page_works_by_keyboard_and_for_a_screen_reader(browser, page_folder, photos):
    with Visit(browser, page_folder) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "pictures"
        choosers = []
        page.on("filechooser", lambda chooser: choosers.append(chooser))
        while not choosers:  # on a busy machine the first key is sometimes lost
            page.keyboard.press("Enter")
            page.wait_for_timeout(500)
        choosers[0].set_files([str(photos[0]), str(photos[1])])
        page.locator("#answers > li[data-label]").nth(1).wait_for()
        status = page.get_by_role("status")
        assert status.inner_text().startswith(f"{photos[1].name}: ")
        page.get_by_label("Choose pictures, or drop them here").wait_for()
        assert page.get_by_role("heading", level=1).inner_text() == "flowers"
        assert page.get_by_role("list", name="Answers").get_by_role("listitem").count() == 2
        table = page.get_by_role("table", name=f"Classes of {photos[0].name}, most likely first")
        assert table.get_by_role("rowheader").count() == 3
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "clear"
        page.keyboard.press("Enter")
        page.get_by_text("All pictures were removed.").wait_for()
        assert page.locator("#answers > li").count() == 0
        assert page.evaluate("document.activeElement.id") == "pictures"


def test_a_damaged_file_is_said_on_the_page(browser, page_folder, tmp_path):
    for name, content in (("onnx/model.onnx", b"cut short"), ("runtime/ort-wasm-simd-threaded.wasm", b"\0asm")):
        folder = tmp_path / Path(name).stem
        shutil.copytree(page_folder, folder)
        (folder / name).write_bytes(content)
        with Visit(browser, folder) as visit:
            assert visit.page.get_attribute("body", "data-state") == "failed"
            assert "The model could not be loaded: " in visit.page.get_by_role("alert").inner_text()
            assert visit.page.locator("#pictures").is_disabled()


def test_the_folder_holds_what_others_read_too(page_folder, classifier):
    card = (page_folder / "README.md").read_text()
    assert "sdk: static" in card
    assert "app_file: index.html" in card
    config = json.loads((page_folder / "config.json").read_text())
    assert config["model_type"] == "vit"  # which transformers.js knows
    assert config["id2label"] == {str(number): label for number, label in LABELS.items()}
    assert {path.name for path in (page_folder / "runtime").iterdir()} == {*RUNTIME, "LICENSE", "ThirdPartyNotices.txt"}
    assert "MIT License" in (page_folder / "runtime" / "LICENSE").read_text()
    image = PIL.Image.fromarray(load_sample_images().images[0])
    one, other = (AutoImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
                  for folder in (classifier, page_folder))  # fmt: skip
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    exported = vithub.load_exported(page_folder)
    with torch.no_grad():
        wanted = AutoModelForImageClassification.from_pretrained(classifier).eval()(one).logits
    torch.testing.assert_close(exported(pixel_values=one).logits, wanted, atol=1e-4, rtol=0)


TRANSFORMERS_PAGE = """<!DOCTYPE html><title>transformers.js</title><link rel="icon" href="data:,">
<body><input type="file" multiple><script type="module">
import { env, pipeline, RawImage } from "./transformers.min.js";
Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/" });
Object.assign(env.backends.onnx.wasm, { wasmPaths: location.origin + "/", numThreads: 1 });
const input = document.querySelector("input"), say = (state, value) => { document.body.dataset[state] = value; };
try {
  const classify = await pipeline("image-classification", "page", { device: "wasm" });
  input.onchange = async () => {
    const found = {};
    for (const file of input.files) found[file.name] = await classify(await RawImage.fromBlob(file), { top_k: 3 });
    say("answers", JSON.stringify(found));
  };
  say("state", "ready");
} catch (error) { say("state", String(error)); }
</script>"""


def test_transformers_js_runs_the_folder(browser, page_folder, classifier, runtime, tmp_path):
    """On images that need no resizing, which it does in a way of its own."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "page").symlink_to(page_folder)
    (root / "index.html").write_text(TRANSFORMERS_PAGE)
    for name in web_packages.TRANSFORMERS_JS:
        (root / name).symlink_to(runtime / name)
    files = []
    for number, levels in enumerate(load_sample_images().images):
        files.append(tmp_path / f"{number}.png")
        PIL.Image.fromarray(np.ascontiguousarray(levels[100:136, 200:236])).save(files[-1])
    with Visit(browser, root) as visit:
        assert visit.page.get_attribute("body", "data-state") == "ready"
        visit.page.set_input_files("input", [str(file) for file in files])
        visit.page.locator("body[data-answers]").wait_for()
        answers = json.loads(visit.page.get_attribute("body", "data-answers"))
        assert visit.strangers() == []
    model, processor = vithub.load(classifier).eval(), AutoImageProcessor.from_pretrained(classifier)
    classify = pipeline("image-classification", model=model, image_processor=processor, top_k=3)
    for file in files:
        wanted, found = classify(str(file)), answers[file.name]
        assert [entry["label"] for entry in found] == [entry["label"] for entry in wanted]
        np.testing.assert_allclose(*([entry["score"] for entry in answer] for answer in (found, wanted)), atol=1e-3)


def test_int8_runs_on_the_page(browser, runtime, digit_folders, tmp_path, finished_run):
    if not LONG:
        pytest.skip("int8 on the page is for the long form of the tests")
    export(finished_run.folder, "onnx", precision="int8", calibration_images=16, max_drop=100, web=True,
           web_runtime=runtime, output=tmp_path / "page")  # fmt: skip
    exported = vithub.load_exported(tmp_path / "page")
    classify = pipeline("image-classification", model=exported, top_k=1,
                        image_processor=AutoImageProcessor.from_pretrained(finished_run.folder))  # fmt: skip
    digits = [next(folder.iterdir()) for folder in sorted(digit_folders.iterdir())[:4]]
    with Visit(browser, tmp_path / "page") as visit:
        answers = visit.answers(digits)
        for file in digits:
            assert answers[file.name]["label"] == classify(vithub_image(file))[0]["label"]


def flowers(real_files, folder, count):
    """Files of validation photos, evenly over the split."""
    table = load_dataset(str(real_files / "data" / "flowers5"), split="validation").cast_column(
        "image", Image(decode=False)
    )
    folder.mkdir()
    for number, row in enumerate(table.select(range(0, len(table), len(table) // count))):
        (folder / f"{number:03}.jpg").write_bytes(row["image"]["bytes"])
    return sorted(folder.iterdir())


def test_real_photos(browser, real_files, page_folder, classifier, tmp_path):
    """All are answered alike, even by a model whose decisions are close."""
    files = flowers(real_files, tmp_path / "photos", 30)
    with Visit(browser, page_folder) as visit:
        share, difference = compared(classifier, visit.answers(files), files)
        assert share == 1
        assert difference < 0.02


def test_all_validation_photos_with_a_trained_model(browser, real_files, runtime, tmp_path):
    if not LONG:
        pytest.skip("all 150 photos are for the long form of the tests")
    files = flowers(real_files, tmp_path / "photos", 150)
    model = real_files / "weights" / "tf_efficientnet_lite0"
    export(model, "onnx", web=True, web_runtime=runtime, output=tmp_path / "page")
    with Visit(browser, tmp_path / "page") as visit:
        answers = visit.answers(files)
        assert visit.strangers() == []
    classify = pipeline("image-classification", model=str(model), top_k=1)
    same = [answers[file.name]["label"] == classify(str(file))[0]["label"] for file in files]
    assert len(same) == 150
    assert np.mean(same) >= 0.99


# Without a browser


def test_where_a_page_cannot_be_made_is_said_first(classifier, tiny, tmp_path):
    wrong = [
        ({"format": "openvino", "web": True, "output": tmp_path / "page"}, "is for onnx"),
        ({"web": True, "with_preprocessing": True, "output": tmp_path / "page"}, "is for onnx"),
        ({"web": True}, "makes a new folder"),
        ({"web_runtime": tmp_path, "output": tmp_path / "page"}, "goes with"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            export(classifier, **options)
    vithub.HubViTModel(tiny()).save_pretrained(tmp_path / "backbone")
    build_image_processor((32, 32)).save_pretrained(tmp_path / "backbone")
    with pytest.raises(BackendError, match="is for image classifiers and detectors, and HubViTModel is neither"):
        export(tmp_path / "backbone", web=True, output=tmp_path / "page")
    with pytest.raises(BackendError, match="holds no runtime for the web"):
        export(classifier, web=True, web_runtime=tmp_path, output=tmp_path / "page")
    assert not (tmp_path / "page").exists()
