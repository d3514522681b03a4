"""`check-data` finds what training would stumble over, and says where it is."""

import io
import json
import warnings

import numpy as np
import pytest
from datasets import DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vithub.data.boxes.loading import load_box_data
from vithub.data.boxes.report import check_data
from vithub.data.image_headers import read_headers
from vithub.data.images import BadImageError, decode_image
from vithub.data.sources import DataError
from vithub.scripts.command_line import app, run


def encoded(kind, size=(40, 30), **options):
    stream = io.BytesIO()
    pixels = np.random.default_rng(size[0]).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def command(*words):
    return run(lambda: app(["check-data", *map(str, words)]))


def kinds(source, **options):
    return {fault["kind"]: fault["count"] for fault in check_data(source, **options).faults()}


def test_a_truncated_image_is_found_by_decoding_and_named_by_its_place(coco, capsys):
    file = coco()
    picture = file.parent / "images" / "3.png"
    picture.write_bytes(encoded("JPEG", (60, 60))[:-600])
    assert command(file) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "error: 1 x bad image" in told
    assert "annotations.json images[3] (3.png): image" in told
    assert "truncated" in told
    assert "must not be trained on" in told
    # headers say nothing of pixels, and the option says so
    assert command(file, "--headers-only") == 0


WHOLE = [encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG"), encoded("WEBP"), encoded("GIF")]


@settings(max_examples=60)
@given(st.sampled_from(WHOLE), st.floats(0, 1), st.booleans(), st.integers(0, 255))
def test_what_the_check_finds_is_what_decoding_refuses(whole, place, cut, value):
    at = int(place * len(whole))
    damaged = whole[:at] if cut else whole[:at] + bytes([value]) + whole[at + 1 :]
    values = [whole, damaged, whole]
    found = read_headers(lambda number: {"bytes": values[number], "path": None}, ["a", "b", "c"], decode=True)
    try:
        decode_image(damaged)
        refused = False
    except BadImageError:
        refused = True
    assert [isinstance(one, BadImageError) for one in found] == [False, refused, False]


def test_filters_of_warnings_are_left_as_they_were():
    before = list(warnings.filters)
    read_headers(lambda _: WHOLE[0], [str(n) for n in range(40)], decode=True)
    assert warnings.filters == before


def test_a_set_without_any_box_is_refused(coco, yolo, capsys):
    def emptied(content):
        content["annotations"] = []

    assert command(coco(emptied)) == 1
    assert "split 'all', number of boxes is 0: none of the 8 images has a box" in " ".join(
        capsys.readouterr().out.split()
    )
    folder = yolo()
    for file in (folder / "labels" / "train").iterdir():
        file.write_text("")
    assert kinds(folder) == {"no boxes": 1, "unused class": 3}


def test_boxes_of_the_test_split_alone_are_none_to_train_on(table):
    def emptied(rows):
        for row in rows:
            row["objects"] = {"bbox": [], "category": []}

    found = check_data(DatasetDict(train=table(emptied), test=table()))
    assert not found.usable
    assert [fault.split for fault in found.checked.faults.found if fault.kind == "no boxes"] == ["train"]


def test_two_classes_of_one_name_are_refused_by_the_check_and_by_training(coco, yolo):
    def renamed(content):
        content["categories"][2]["name"] = "cat"

    file, folder = coco(renamed), yolo()
    (folder / "data.yaml").write_text("train: images/train\nnames: [cat, dog, cat]\n")
    for source, place in ((file, "class 90: name is 'cat': the class 3"), (folder, "class 2: name is 'cat'")):
        assert kinds(source)["duplicate class name"] == 1
        with pytest.raises(DataError, match=place):
            load_box_data(source)


def test_a_repeated_image_is_an_error_where_the_split_will_be_divided(coco, table, capsys):
    file = coco()
    images = file.parent / "images"
    content = json.loads(file.read_text())
    (images / "copy.png").write_bytes((images / "0.png").read_bytes())
    content["images"].append({"id": 555, "file_name": "copy.png", "width": 64, "height": 48})
    file.write_text(json.dumps(content))
    assert command(file) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "images[8] (copy.png) is '555': the same image is annotations.json images[0] (0.png)" in told
    # where validation images are there, nothing is drawn from the training images

    def repeated(rows):
        rows[7] = {**rows[7], "image": rows[6]["image"]}

    def others(rows):
        for row in rows:
            row["image"] = row["image"].rotate(180)

    both = DatasetDict(train=table(repeated), validation=table(others))
    report = check_data(both)
    assert report.usable
    assert report.checked.faults.counts["repeated image"] == 1
    assert not check_data(both["train"]).usable


def test_formats_without_areas_are_not_told_that_areas_are_missing(voc, yolo, coco, table):
    def without(content):
        for annotation in content["annotations"]:
            del annotation["area"]

    def one_without(content):
        del content["annotations"][4]["area"]

    assert kinds(voc()) == kinds(yolo()) == {}
    assert kinds(coco(without)) == kinds(table()) == {"missing area": 1}
    partly = check_data(coco(one_without, folder="other"))
    assert "annotations[4].bbox" in partly.faults()[0]["examples"][0]["place"]
