"""`handler.py` is called as an inference endpoint calls it: one object, then requests of any content."""

import base64
import importlib.util
import io

import pytest
from PIL import Image
from published import written
from transformers import pipeline
from vithub.hub.push.errors import PublishError
from vithub.hub.push.files import HANDLER

import vithub


def handler_of(folder, tmp_path_factory, **options):
    """The published folder's files as the endpoint has them, and its handler."""
    target = written(folder, tmp_path_factory.mktemp("endpoint") / "model", endpoint=True, **options)
    spec = importlib.util.spec_from_file_location("handler", target / HANDLER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return target, module


@pytest.fixture(scope="module", params=["native", "bundle"])
def classifier(request, finished_run, tmp_path_factory):
    target, module = handler_of(finished_run.folder, tmp_path_factory, **{request.param: True})
    return target, module.EndpointHandler(str(target)), module


@pytest.fixture
def photo(digit_folders):
    return next((digit_folders / "two").iterdir())


def test_it_answers_as_pipeline_does_whatever_way_the_image_comes(classifier, photo):
    target, handler, _ = classifier
    wanted = pipeline("image-classification", model=str(target))(str(photo))
    content = photo.read_bytes()
    text = base64.b64encode(content).decode()
    for image in (Image.open(photo), content, bytearray(content), text, f"data:image/png;base64,{text}"):
        assert handler({"inputs": image}) == wanted
    assert handler({"inputs": [content, text], "parameters": {"top_k": 2}}) == [wanted[:2]] * 2
    assert handler({"inputs": text, "parameters": None}) == wanted


def test_a_turned_and_a_transparent_image_are_seen_as_a_viewer_shows_them(classifier, photo):
    _, handler, module = classifier
    image = Image.open(photo).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    turned = io.BytesIO()
    image.rotate(90, expand=True).save(turned, "PNG", exif=exif)
    assert module.read_image(turned.getvalue()).tobytes() == image.tobytes()
    assert handler({"inputs": image.convert("RGBA")}) == handler({"inputs": image})


def test_a_detector_gives_boxes_above_the_threshold(detector_run, detector_data, tmp_path_factory):
    target, module = handler_of(detector_run.folder, tmp_path_factory)
    handler = module.EndpointHandler(str(target))
    image = detector_data[0]["image"]
    few, many = (handler({"inputs": image, "parameters": {"threshold": value}}) for value in (0.5, 0.0))
    assert len(many) > len(few)
    assert all(found["score"] > 0.5 for found in few)
    assert set(many[0]) == {"score", "label", "box"}
    assert handler({"inputs": [image, image], "parameters": {"threshold": 0.0}}) == [many, many]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, '"inputs" is missing'),
        ("photo", '"inputs" is missing'),
        ({"inputs": []}, "must hold 1 to 32 images, got 0"),
        ({"inputs": [b"x"] * 33}, "must hold 1 to 32 images, got 33"),
        ({"inputs": 7}, "must be an image, its bytes or their base64 text, got int"),
        ({"inputs": "https://example.org/a.png"}, "image 0 is an address"),
        ({"inputs": "file:///etc/passwd"}, "image 0 is an address"),
        ({"inputs": "/etc/passwd"}, "no image in a known format|no base64"),
        ({"inputs": "not base64!"}, "image 0 is text, but no base64"),
        ({"inputs": b"no image"}, "image 0 is no image in a known format"),
        ({"inputs": "GOOD", "parameters": {"threshold": 0.5}}, "may hold top_k alone, got"),
        ({"inputs": "GOOD", "parameters": {"top_k": 0}}, "top_k must be a whole number of at least 1, got 0"),
        ({"inputs": "GOOD", "parameters": {"top_k": True}}, "top_k must be a whole number"),
        ({"inputs": "GOOD", "parameters": [1]}, "may hold top_k alone"),
    ],
)
def test_a_wrong_request_is_one_line(classifier, photo, request_, message):
    _, handler, _ = classifier
    if isinstance(request_, dict) and request_.get("inputs") == "GOOD":
        request_ = request_ | {"inputs": photo.read_bytes()}
    with pytest.raises(ValueError, match=message):
        handler(request_)


def test_large_and_damaged_images_are_refused(classifier, photo, monkeypatch):
    _, handler, module = classifier
    content = photo.read_bytes()
    with pytest.raises(ValueError, match=r"image 0 could not be decoded|no image"):
        handler({"inputs": content[: len(content) // 2]})
    monkeypatch.setattr(module, "MOST_PIXELS", 10)
    with pytest.raises(ValueError, match=r"image 1 has 8 x 8 pixels, more than 10|image 0 has 8 x 8 pixels"):
        handler({"inputs": [content, content]})
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="bytes, more than 10"):
        handler({"inputs": content})
    with pytest.raises(ValueError, match="characters of text, more than 20"):
        handler({"inputs": "a" * 40})


def test_it_is_sent_only_if_asked_and_replaces_no_handler_of_its_author(finished_run, tmp_path):
    assert HANDLER not in {file.path for file in vithub.publish(finished_run.folder, "ada/m", dry_run=True).sent}
    model = vithub.load(finished_run.folder)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / HANDLER).write_text("# mine\n")
    with pytest.raises(PublishError, match=r"holds a handler\.py of its own"):
        vithub.publish(tmp_path / "model", "ada/m", endpoint=True, dry_run=True)
