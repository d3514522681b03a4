"""Each fault that is put into photos without one is found, alone, by its name and its place."""

import io
import shutil
import weakref
from itertools import count

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from smooth_photos import smooth_photo as photo
from vithub.data.checking.inspection import inspect_photos
from vithub.data.checking.measuring import measure
from vithub.data.checking.photos import AT_ONCE, Photo, Photos, PhotoSplit, read_photos
from vithub.data.images import BadImageError, decode_image

import vithub


def found(source, **options):
    report = vithub.check_data(source, **options)
    return {fault["kind"]: (fault["count"], fault["examples"][0]["place"]) for fault in report.faults()}


def encoded(kind, mode="RGB", **options):
    stream = io.BytesIO()
    photo(99).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def truncated(file):
    file.write_bytes(file.read_bytes()[:-400])


def no_image(file):
    file.write_bytes(b"<html>404 not found</html>")


def turned(file):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(99).save(file, exif=exif)


def deep(file):
    pixels = np.random.default_rng(0).integers(0, 65535, (54, 72)).astype(np.uint16)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    file.with_suffix(".png").write_bytes(stream.getvalue())
    file.unlink()


def animated(file):
    frames = [photo(seed) for seed in (98, 99)]
    frames[0].save(file.with_suffix(".webp"), save_all=True, append_images=frames[1:])
    file.unlink()


ON_A_FILE = {
    "truncated image": truncated,
    "bad image": no_image,
    "wrong extension": lambda file: file.write_bytes(encoded("PNG")),
    "exif rotation": turned,
    "colour mode": lambda file: file.write_bytes(encoded("JPEG", "CMYK")),
    "transparency": lambda file: (file.with_suffix(".png").write_bytes(encoded("PNG", "RGBA")), file.unlink()),
    "depth": deep,
    "animation": animated,
    "blank image": lambda file: Image.new("RGB", (72, 54), (9, 9, 90)).save(file),
    "small image": lambda file: photo(99, (6, 6)).save(file),
    "large image": lambda file: photo(99, (600, 500)).save(file),
    "aspect ratio": lambda file: photo(99, (250, 54)).save(file),
}


def test_photos_without_a_fault_have_none(photos):
    assert found(photos()) == {}


@pytest.mark.parametrize("kind", ON_A_FILE)
def test_a_faulty_file_is_found_alone_and_by_its_place(kind, photos):
    root = photos()
    ON_A_FILE[kind](root / "train" / "tulip" / "3.jpg")
    faults = found(root)
    assert set(faults) == {kind}
    count, place = faults[kind]
    assert (count, place.rpartition(".")[0]) == (1, "train/tulip/3")
    report = vithub.check_data(root)
    assert report.usable == (kind not in ("truncated image", "bad image"))
    assert report.splits()[0]["unreadable"] == int(not report.usable)


def again(source, target):
    """A smaller and coarser copy of a picture."""
    Image.open(source).resize((60, 45)).save(target, quality=60)


@pytest.mark.parametrize(
    ("copy", "source", "target", "kinds"),
    [
        (shutil.copy, "train/rose/1.jpg", "test/rose/n.jpg", {"same image twice"}),
        (shutil.copy, "train/rose/1.jpg", "test/tulip/n.jpg", {"same image twice", "two labels"}),
        (shutil.copy, "test/rose/1.jpg", "test/rose/n.jpg", {"repeated image"}),
        (shutil.copy, "train/rose/1.jpg", "train/tulip/n.jpg", {"repeated image", "two labels"}),
        (again, "train/rose/1.jpg", "validation/rose/n.jpg", {"near duplicate across splits"}),
        (again, "validation/rose/1.jpg", "validation/rose/n.jpg", {"near duplicate"}),
        (again, "train/rose/1.jpg", "train/tulip/n.jpg", {"near duplicate with another label"}),
    ],
)
def test_copies_are_told_apart_by_split_label_and_likeness(copy, source, target, kinds, photos):
    root = photos()
    copy(root / source, root / target)
    report = vithub.check_data(root)
    faults = {fault["kind"]: fault for fault in report.faults()}
    assert set(faults) == kinds
    for fault in faults.values():
        assert fault["count"] == 1
        text = fault["examples"][0]["text"]
        assert source in text, text
        assert target in text, text
    # the copy of the later split is the one at fault, or the later file of two in one
    split, row = report.checked.faults.found[0].other
    assert split == source.split("/")[0]
    assert row == 1 if "rose/1" in source else row


def test_a_copy_in_a_split_that_will_be_divided_is_an_error(photos):
    root = photos(splits=None)
    shutil.copy(root / "rose" / "1.jpg", root / "rose" / "copy.jpg")
    assert set(found(root)) == {"same image twice"}


def test_classes_by_number_and_name(photos):
    root = photos(classes=("rose", "tulip", "Rose "))
    assert found(root)["similar class names"] == (1, "class 'rose'")
    for file in (root / "train" / "tulip").iterdir():
        file.unlink()
    shutil.rmtree(root / "test" / "Rose ")
    for number in range(2, 6):
        (root / "train" / "Rose " / f"{number}.jpg").unlink()
    faults = found(root)
    assert faults["empty class"] == (1, "class 'tulip'")
    assert faults["absent class"] == (1, "class 'Rose '")
    assert faults["class of few"] == (1, "class 'Rose '")
    assert "unbalanced classes" not in faults
    for number in range(60):
        photo(1000 + number).save(root / "train" / "rose" / f"more{number}.jpg")
    assert "unbalanced classes" in found(root)
    assert "too few classes" in found(photos(classes=("rose",), name="one"))


def table(labels, feature):
    rows = [
        {"image": {"bytes": encoded("PNG", "L") + bytes([n]), "path": None}, "label": x} for n, x in enumerate(labels)
    ]
    return Dataset.from_list(rows, features=Features({"image": ImageFeature(decode=False), "label": feature}))


def test_labels_that_are_missing_or_unknown_are_found_where_training_refuses_the_first():
    names = ClassLabel(names=["rose", "tulip"])
    faults = found(table([0, 1, None, -1, 0], names))
    assert faults["missing label"] == (1, "row 2")
    assert found(table(["rose", " ", None, "tulip"], Value("string")))["missing label"] == (2, "row 1")
    split = DatasetDict(train=table([0, 1] * 3, names), test=table([-1, None], names))
    report = vithub.check_data(split)  # as a training does
    assert not {"missing label", "unknown label"} & {fault["kind"] for fault in report.faults()}
    assert any("the test split has no labels (all of its 2" in note for note in report.to_dict()["notes"])
    several = table([[0, 1], [], [1], [0]], List(names))
    assert "missing label" not in found(several)
    assert {row["name"]: row["images"]["train"] for row in vithub.check_data(several).classes()} == {
        "rose": 2,
        "tulip": 2,
    }


def test_a_stream_gives_the_report_of_the_table(photos, tmp_path):
    root = photos(splits=("train", "test"))
    again(root / "train" / "rose" / "1.jpg", root / "test" / "tulip" / "n.jpg")
    shutil.copy(root / "train" / "rose" / "2.jpg", root / "train" / "tulip" / "n.jpg")
    truncated(root / "test" / "rose" / "4.jpg")
    splits = DatasetDict()
    for split, rows in read_photos(root).splits.items():
        content = [
            {"image": {"bytes": p.image_bytes, "path": None}, "label": p.label} for p in map(_Loaded, rows.read())
        ]
        names = ClassLabel(names=["rose", "tulip"])
        splits[split] = Dataset.from_list(content, features=Features({"image": ImageFeature(), "label": names}))
    for split, rows in splits.items():
        rows.to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    whole = vithub.check_data(tmp_path / "parquet", output=tmp_path / "whole")
    streamed = vithub.check_data(tmp_path / "parquet", streaming=True, output=tmp_path / "streamed")
    expected = whole.to_dict()
    assert {fault["kind"] for fault in expected["faults"]} == {
        "truncated image", "same image twice", "two labels", "near duplicate across splits",
    }  # fmt: skip
    assert streamed.to_dict() == {**expected, "kind": "stream"}
    page = (tmp_path / "whole" / "report.html").read_text()
    assert (tmp_path / "streamed" / "report.html").read_text() == page
    assert page.count("data:image/jpeg") == 6  # of the three pairs; the truncated image has no picture


class _Loaded:
    def __init__(self, row):
        with open(row.image["path"], "rb") as file:  # noqa: PTH123
            self.image_bytes = file.read()
        self.label = row.label


def test_headers_alone_miss_pixels_and_nothing_else(photos):
    root = photos()
    truncated(root / "train" / "tulip" / "3.jpg")
    turned(root / "train" / "tulip" / "4.jpg")
    shutil.copy(root / "train" / "rose" / "1.jpg", root / "test" / "rose" / "n.jpg")
    again(root / "train" / "rose" / "2.jpg", root / "test" / "rose" / "m.jpg")
    assert set(found(root, headers_only=True)) == {"exif rotation", "same image twice"}


WHOLE = [encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG"), encoded("WEBP"), encoded("GIF")]


@settings(max_examples=60)
@given(st.sampled_from(WHOLE), st.floats(0, 1, exclude_max=True), st.booleans(), st.integers(0, 255))
def test_an_image_is_bad_where_decoding_refuses_it(whole, place, cut, value):
    at = int(place * len(whole))
    damaged = whole[:at] if cut else whole[:at] + bytes([value]) + whole[at + 1 :]
    try:
        decode_image(damaged)
        refused = False
    except BadImageError:
        refused = True
    assert (measure({"bytes": damaged, "path": None}).error is not None) == refused


class Tracked(dict):
    """A dictionary that a set of weak references can hold."""


def test_no_more_images_are_held_than_are_looked_at():
    held: dict[int, weakref.ref] = {}
    most, numbers = 0, count()

    def tracked(**content):
        nonlocal most
        one, number = Tracked(content), next(numbers)
        held[number] = weakref.ref(one, lambda _: held.pop(number))
        most = max(most, len(held))
        return one

    content = encoded("JPEG")

    def read():
        for number in range(1000):
            yield Photo(tracked(bytes=content + bytes([number % 256, number // 256]), path=None), "ab"[number % 2])

    source = Photos("made", "stream", {"train": PhotoSplit(read)}, None)
    checked = inspect_photos(
        source, prepare=lambda picture: tracked(picture=picture), embed=lambda given: np.ones((len(given), 4))
    )
    assert checked.content["train"].images == len(checked.rows) == len(checked.embeddings) == 1000
    assert 2 * AT_ONCE <= most < 4 * AT_ONCE
    kept = sum(column.itemsize * len(column) for column in vars(checked.rows).values())
    assert kept <= 64 * 1000
