import http.server
import io
import threading
from functools import partial

import pytest
import torch
from PIL import Image
from rich.console import Console
from vithub.data.images import BadImageError
from vithub.data.sources import DataError
from vithub.hub.checkpoints import CheckpointError
from vithub.training.prediction import prediction_table

import vithub


@pytest.fixture(scope="module")
def photos(digit_folders, tmp_path_factory):
    """A folder with two images, one of them in a folder of its own, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for source, target in (("three", "b.png"), ("seven", "more/a.JPG")):
        with Image.open(min((digit_folders / source).iterdir())) as image:
            image.convert("RGB").save(folder / target)
    (folder / "notes.txt").write_text("no image")
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def server(photos):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(photos))) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def predict(run, images, **options):
    return vithub.predict(run.folder, images, **options)


def test_files_folders_and_addresses_give_the_same_in_the_order_asked(finished_run, photos, server):
    files = [str(photos / "b.png"), str(photos / "more" / "a.JPG")]
    expected = predict(finished_run, files)
    assert [p["image"] for p in expected] == files
    assert predict(finished_run, [photos]) == expected
    assert [p["image"] for p in predict(finished_run, [files[1], photos])] == [files[1], *files]
    fetched = predict(finished_run, [f"{server}/b.png", files[1]])
    assert [p["image"] for p in fetched] == [f"{server}/b.png", files[1]]
    assert [p["predictions"] for p in fetched] == [p["predictions"] for p in expected]


def test_scores_are_probabilities_in_falling_order(finished_run, photos):
    for prediction in predict(finished_run, [photos], top=10):
        scores = [entry["score"] for entry in prediction["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
        assert {entry["label"] for entry in prediction["predictions"]} == set(finished_run.model.config.label2id)


@pytest.mark.parametrize(("top", "given"), [(1, 1), (3, 3), (99, 10)])
def test_as_many_labels_as_asked_and_no_more_than_there_are(top, given, finished_run, photos):
    whole = predict(finished_run, [photos], top=10)
    for prediction, longer in zip(predict(finished_run, [photos], top=top), whole, strict=True):
        assert prediction["predictions"] == longer["predictions"][:given]


def test_several_labels_have_probabilities_of_their_own(multi_label_run, multi_label_digits, photos):
    image = multi_label_digits[0]["image"]
    image.save(photos.parent / "zero.png")
    (prediction,) = predict(multi_label_run, [photos.parent / "zero.png"])
    pixels = vithub.load_image_processor(multi_label_run.folder)(image.convert("RGB"), return_tensors="pt")
    with torch.inference_mode():
        expected = multi_label_run.model(**pixels).logits[0].sigmoid().tolist()
    labels = multi_label_run.model.config.label2id
    found = {entry["label"]: entry["score"] for entry in prediction["predictions"]}
    assert found == pytest.approx({name: expected[number] for name, number in labels.items()}, rel=1e-5)
    assert sum(found.values()) != pytest.approx(1)


def test_pictures_come_one_batch_after_the_other(finished_run, photos):
    # the first answers are there before the last picture is looked at
    (photos.parent / "text.png").write_text("no image")
    given = [photos / "b.png", photos.parent / "text.png", photos / "more" / "a.JPG"]
    for batch_size in (1, 2, 3):
        images = vithub.predict_stream(finished_run.folder, given, batch_size=batch_size)
        assert next(images)["image"] == str(photos / "b.png")
        with pytest.raises(BadImageError, match=r"text\.png: not an image in a known format"):
            next(images)
        first, second, third = vithub.predict(finished_run.folder, given, batch_size=batch_size, on_bad_image="skip")
        alone = predict(finished_run, [given[0], given[2]], batch_size=1)
        for answer, expected in zip((first, third), alone, strict=True):
            assert answer["image"] == expected["image"]
            (best, *_), (other, *_) = answer["predictions"], expected["predictions"]
            assert (best["label"], best["score"]) == (other["label"], pytest.approx(other["score"], abs=1e-5))
        assert second == {
            "image": str(given[1]), "predictions": [], "error": f"{given[1]}: not an image in a known format"
        }  # fmt: skip


def test_one_path_or_many_give_an_ordinary_list(finished_run, photos):
    many = predict(finished_run, [photos / "b.png"])
    assert type(many) is list
    assert predict(finished_run, photos / "b.png") == predict(finished_run, str(photos / "b.png")) == many
    assert predict(finished_run, str(photos)) == predict(finished_run, (photos,))


def test_wrong_arguments_are_errors_of_the_call(finished_run, photos, tmp_path):
    for images, options, error, match in (
        (photos, {"on_bad_image": "ignore"}, ValueError, "`on_bad_image` must be 'error' or 'skip', got 'ignore'"),
        (photos, {"top": 0}, ValueError, "`top` must be at least 1, got 0"),
        (photos, {"output": tmp_path / "out"}, ValueError, "`output` is for the boxes of a detector"),
        (photos / "gone.png", {}, DataError, r"there is no image at .*gone\.png"),
        ([], {}, DataError, "there are no images"),
    ):
        with pytest.raises(error, match=match):
            vithub.predict_stream(finished_run.folder, images, **options)  # before anything is asked for
    with pytest.raises(CheckpointError, match="nowhere"):
        vithub.predict_stream(tmp_path / "nowhere", photos)


def test_what_is_not_there_is_named_before_anything_is_computed(finished_run, photos, tmp_path):
    with pytest.raises(DataError, match=r"there is no image at .*gone\.png"):
        predict(finished_run, [photos / "b.png", photos / "gone.png"])
    with pytest.raises(DataError, match=r"holds no images \(.*\.png"):
        predict(finished_run, [tmp_path])
    with pytest.raises(CheckpointError, match="nowhere"):
        vithub.predict(tmp_path / "nowhere", [photos / "b.png"])


def test_an_image_cut_short_is_named(finished_run, photos, tmp_path):
    (tmp_path / "cut.png").write_bytes((photos / "b.png").read_bytes()[:70])
    with pytest.raises(BadImageError, match=r"cut\.png: "):
        predict(finished_run, [tmp_path / "cut.png"])


def test_addresses_that_give_no_image_are_named(finished_run, server):
    with pytest.raises(BadImageError, match=rf"{server}/gone\.png: 404"):
        predict(finished_run, [f"{server}/gone.png"])
    with pytest.raises(BadImageError, match=rf"{server}/notes\.txt: not an image"):
        predict(finished_run, [f"{server}/notes.txt"])
    with pytest.raises(BadImageError, match=r"http://127\.0\.0\.1:9/x\.png: "):
        predict(finished_run, ["http://127.0.0.1:9/x.png"])


def test_a_download_that_never_ends_is_refused(finished_run, server, monkeypatch):
    monkeypatch.setattr("vithub.data.pixels.named_images.MAX_DOWNLOAD", 50)
    with pytest.raises(BadImageError, match="larger than"):
        predict(finished_run, [f"{server}/b.png"])


def test_images_of_every_mode_are_read(finished_run, photos, tmp_path):
    with Image.open(photos / "b.png") as image:
        for mode in ("L", "LA", "RGBA", "P"):
            image.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / f"{mode}.png")  # loses no level
    answers = [prediction["predictions"] for prediction in predict(finished_run, [tmp_path], top=10)]
    first, *others = ({entry["label"]: entry["score"] for entry in answer} for answer in answers)
    for other in others:
        assert other == pytest.approx(first, abs=1e-5)


def test_the_table_leaves_names_as_they_are(finished_run, photos):
    predictions = predict(finished_run, [photos / "b.png"], top=2)
    predictions[0]["image"] = "holiday[red]/photo[a].jpg"  # no markup
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(prediction_table(predictions))
    text = console.export_text()
    assert text.count("holiday[red]/photo[a].jpg") == 1
    assert all(f"{entry['score']:.1%}" in text for entry in predictions[0]["predictions"])


def test_a_least_score_is_refused_for_a_classifier(finished_run, digit_folders):
    with pytest.raises(ValueError, match=r"`threshold` 0\.9 has no effect on a classifier"):
        vithub.predict(finished_run.folder, digit_folders / "one", threshold=0.9)
