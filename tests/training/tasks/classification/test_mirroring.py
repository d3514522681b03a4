import json

import numpy as np
import PIL.Image
import pytest
import torch
from vithub.training.tasks.classification.mirroring import MirroredClassifier, _MirrorMean

import vithub


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo and its mirror image, of the size that the model takes, so that both are cut alike."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    for name, part in (("one", pixels), ("other", pixels[:, ::-1])):
        PIL.Image.fromarray(part).save(folder / f"{name}.png")
    return folder


def scores(answers):
    return [{entry["label"]: entry["score"] for entry in answer["predictions"]} for answer in answers]


def test_answers_are_the_mean_of_an_image_and_its_mirror_image(finished_run, photo):
    images = [photo / "one.png", photo / "other.png"]
    one, other = scores(vithub.predict(finished_run.folder, images, top=10))
    mirrored = scores(vithub.predict(finished_run.folder, images, top=10, mirrored=True))
    assert any(abs(one[label] - other[label]) > 1e-3 for label in one)
    for answer in mirrored:
        assert answer == pytest.approx({label: (one[label] + other[label]) / 2 for label in one}, abs=1e-5)


def test_labels_that_may_occur_together_are_averaged_one_by_one(tiny):
    model = vithub.HubViTForImageClassification(tiny(problem_type="multi_label_classification")).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = _MirrorMean(model)(pixels).logits.sigmoid()
        expected = (model(pixels).logits.sigmoid() + model(pixels.flip(-1)).logits.sigmoid()) / 2
    torch.testing.assert_close(found, expected)


def test_an_evaluation_says_that_it_is_mirrored(finished_run, digit_folders, tmp_path):
    asked = {"data": digit_folders, "split": "train", "workers": 0}
    plain = vithub.evaluate(finished_run.folder, **asked)
    mirrored = vithub.evaluate(finished_run.folder, output=tmp_path / "measured", mirrored=True, **asked)
    assert "mirrored" not in plain
    assert json.loads((tmp_path / "measured" / "metrics.json").read_text())["mirrored"] is True
    assert mirrored["metrics"]["loss"] != pytest.approx(plain["metrics"]["loss"], abs=1e-3)
    again = MirroredClassifier(finished_run.folder)
    assert vithub.evaluate(finished_run.folder, backend=again, **asked)["metrics"] == mirrored["metrics"]


def test_a_detector_has_no_mirrored_answers(detector_run, photo):
    with pytest.raises(ValueError, match="mirrored=True has no effect on a model for detection"):
        vithub.predict(detector_run.folder, photo / "one.png", mirrored=True)


def test_a_backbone_has_no_mirrored_answers(tiny, photo, tmp_path):
    vithub.HubViTModel(tiny()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="mirrored=True has no effect on a model for pretraining"):
        vithub.predict(tmp_path, photo / "one.png", mirrored=True)
