"""Images that processes load ahead of the model are predicted as those that are loaded one by one."""

import os

import PIL.Image
import pytest
import torch
from vithub.data.images import BadImageError
from vithub.data.pixels.named_images import read_image
from vithub.training.loading_ahead import loaded_ahead
from vithub.training.prediction import predict_stream
from vithub.training.runtime.loading_processes import LoadingProcessError

import vithub


@pytest.fixture(scope="module")
def photos(digit_folders):
    return sorted((digit_folders / "two").iterdir())[:20] + sorted((digit_folders / "six").iterdir())[:20]


def test_predictions_are_the_same(finished_run, photos, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(photos[0].read_bytes()[:60])
    names = [*photos[:11], damaged, *photos[11:]]
    one = vithub.predict(finished_run.folder, names, batch_size=7, on_bad_image="skip")
    other = vithub.predict(finished_run.folder, names, batch_size=7, on_bad_image="skip", workers=2)
    assert other == one
    assert "damaged.png" in other[11]["error"]
    found, stream = [], predict_stream(finished_run.folder, names, batch_size=4, workers=2)
    with pytest.raises(BadImageError, match=r"damaged\.png"):
        all(found.append(entry) is None for entry in stream)
    assert [entry["image"] for entry in found] == [entry["image"] for entry in one[:11]]


def test_a_detectors_images_come_as_they_are(detector_run, detector_data, tmp_path):
    for number in range(36):
        detector_data[number]["image"].save(tmp_path / f"{number:02}.png")
    one, other = (vithub.predict(detector_run.folder, tmp_path, threshold=0.2, workers=workers) for workers in (0, 2))
    assert other == one


def test_what_is_yielded_is_in_order_and_all_there(photos):
    names = [str(photo) for photo in photos[:35]]
    for prepare in (None, _pixels):
        loaded = list(loaded_ahead(names, read_image, prepare, 2))
        assert [name for name, _ in loaded] == names
        for name, content in loaded:
            wanted = PIL.Image.open(name).convert("RGB")
            assert torch.equal(_pixels(content) if prepare is None else content, _pixels(wanted))


def _pixels(image):
    width, height = image.size
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, height, width, 3)


def test_a_dead_loading_process_is_named(photos):
    names = [str(photo) for photo in photos]
    with pytest.raises(LoadingProcessError, match=r"a loading process died .*workers=0"):
        list(loaded_ahead(names, lambda name: os._exit(9), None, 2))


def test_fewer_than_no_workers_are_refused(finished_run, photos):
    with pytest.raises(ValueError, match="must be at least 0, got -1"):
        vithub.predict(finished_run.folder, photos, workers=-1)
