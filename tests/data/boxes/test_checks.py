import json

import numpy as np
import pytest
from datasets import ClassLabel, DatasetDict, Value
from PIL import Image
from vithub.data.boxes.checks import inspect_boxes
from vithub.data.boxes.faults import KINDS
from vithub.data.boxes.formats import BoxFormat
from vithub.data.boxes.loading import guard, load_box_data
from vithub.data.boxes.report import check_data
from vithub.data.boxes.sources import read_box_source
from vithub.data.sources import DataError
from vithub.scripts.command_line import app, run


def annotation(number, **values):
    return lambda content: content["annotations"][number].update(values)


def image(number, **values):
    return lambda content: content["images"][number].update(values)


def taken_away(number, name):
    return lambda content: content["annotations"][number].pop(name)


def several(*changes):
    return lambda content: [change(content) for change in changes]


def rewritten(convert):
    """Every box of the file through a function of left, top, width, height and the image's width and height."""

    def change(content):
        sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in content["images"]}
        for entry in content["annotations"]:
            entry["bbox"] = convert(*entry["bbox"], *sizes[entry["image_id"]])
            del entry["area"]

    return change


# What is wrong, the kind it is found as, and what the message must hold: file and row, field, value.
FAULTS = [
    (annotation(1, bbox=[30, 10, 0, 30]), "degenerate box", r"images\[0\] \(0\.png\): annotations\[1\]\.bbox is \[30"),
    (annotation(1, bbox=[30, 10, 10, -5]), "degenerate box", r"it is 10 x -5 pixels"),
    (annotation(1, bbox=[30, 10, float("nan"), 5]), "not a box", r"annotations\[1\]\.bbox is \[30, 10, nan, 5\]"),
    (annotation(1, bbox=[30, 10, float("inf"), 5]), "not a box", r"four finite numbers"),
    (annotation(1, bbox=[30, 10, 5]), "not a box", r"is \[30, 10, 5\]"),
    (annotation(1, bbox=["30", 10, 5, 5]), "not a box", r"four finite numbers"),
    (annotation(1, bbox=None), "not a box", r"is None"),
    (annotation(1, bbox=[70, 10, 5, 5]), "box outside", r"outside the image of 64 x 48 pixels"),
    (annotation(1, bbox=[30, 10, 60, 30]), "box partly outside", r"26 pixels beyond the image of 64 x 48"),
    (annotation(1, bbox=[0.3, 0.2, 0.5, 0.5]), "wrong unit", r"no number is above 1, but boxes are in pixels"),
    (annotation(1, category_id=4), "class id", r"class is 4: the classes are 3, 7, 90"),
    (annotation(1, category_id=None), "class id", r"class is None"),
    (annotation(1, category_id="dog"), "class id", r"class is 'dog'"),
    (annotation(1, iscrowd=2), "crowd", r"iscrowd is 2"),
    (annotation(1, area=-4), "area", r"area is -4: it must be a positive number"),
    (annotation(1, area="12"), "area", r"area is '12'"),
    (annotation(1, image_id=999), "orphan", r"annotations\[1\]\.image_id is 999"),
    (image(1, id=100), "duplicate image id", r"image id is 100: is that of .*0\.png"),
    (image(1, id=None), "missing image id", r"image id is None"),
    (image(0, width=48, height=64), "image size", r"64 x 48 pixels: width and height are swapped"),
    (image(0, width=640, height=480), "image size", r"64 x 48 pixels: it was resized after"),
    (image(0, width="wide"), "image size", r"64 x 48 pixels"),
    (image(0, file_name="gone.png"), "bad image", r"no such file: .*gone\.png"),
    (rewritten(lambda x, y, w, h, *_: [x, y, x + w, y + h]), "box format", r"look like xyxy pixels .*not xywh pixels"),
    (rewritten(lambda x, y, w, h, *_: [x + w / 2, y + h / 2, w, h]), "box format", r"look like cxcywh pixels"),
    (rewritten(lambda x, y, w, h, a, b: [x / a, y / b, w / a, h / b]), "box format", r"look like xywh relative"),
    (rewritten(lambda x, y, w, h, *_: [y, x, h, w]), "swapped axes", r"look like yxhw pixels"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), FAULTS, ids=[f"{n}-{f[1]}" for n, f in enumerate(FAULTS)])
def test_a_fault_is_found_and_training_refuses_it(coco, change, kind, message):
    file = coco(change)
    checked = inspect_boxes(read_box_source(file))
    assert checked.faults.counts[kind] >= 1
    with pytest.raises(DataError, match=message):
        load_box_data(file)


def test_several_faults_are_counted(coco):
    wrong = several(annotation(1, bbox=[30, 10, 0, 30]), annotation(2, bbox=[1, 1, 0, 3]), annotation(4, category_id=5))
    with pytest.raises(DataError, match=r"3 faults: 2 x degenerate box, 1 x class id; `vithub check-data` shows them"):
        load_box_data(coco(wrong))


REPAIRED = several(
    annotation(1, bbox=[30, 10, 60, 30]), annotation(2, bbox=[1, 1, 0, 3]), annotation(3, bbox=[90, 1, 5, 3])
)


def test_boxes_are_cut_and_left_out_only_where_that_is_asked_for(coco):
    file = coco(REPAIRED)
    with pytest.raises(DataError, match=r"data\.repair_boxes cuts such boxes or leaves them out"):
        load_box_data(file)
    data = load_box_data(file, repair=True, validation_fraction=0.2, test_fraction=0)
    rows = {row["image_id"]: row for split in data.splits.values() for row in split.remove_columns("image")}
    assert rows["100"]["boxes"][1] == [30, 10, 64, 40]
    assert rows["101"]["boxes"] == []
    assert len(rows["103"]["boxes"]) == 2
    assert "2 boxes without a width, or outside of their image, were left out" in data.notes
    assert "1 boxes were cut at the border of their image" in data.notes
    with pytest.raises(DataError, match="class"):
        load_box_data(coco(several(REPAIRED, annotation(4, category_id=5)), folder="other"), repair=True)


def test_a_missing_area_and_text_as_image_id_are_no_faults(coco):
    def change(content):
        for entry in content["images"]:
            entry["id"] = f"image-{entry['id']}"
        for entry in content["annotations"]:
            entry["image_id"] = f"image-{entry['image_id']}"
            del entry["area"], entry["iscrowd"]

    data = load_box_data(coco(change), validation_fraction=0.2, test_fraction=0)
    assert not data.classes.integer_image_ids
    assert data.train[0]["image_id"] == "image-100"
    assert data.train[0]["area"] == [16 * 24, 34 * 30]


def test_class_ids_written_as_text_are_taken_for_the_numbers(coco):
    def change(content):
        for entry in content["annotations"]:
            entry["category_id"] = str(entry["category_id"])

    checked = inspect_boxes(read_box_source(coco(change)))
    guard(checked)
    assert checked.faults.counts["text id"] == 14
    assert checked.images["all"][0].classes.tolist() == [0, 1]


def test_class_ids_that_count_from_1_are_told_not_trained_as_no_object(yolo, table):
    with pytest.raises(DataError, match="ids count from 0 to 2 here, and seem to count from 1 in the boxes"):
        load_box_data(yolo(first=1))

    def change(rows):
        for row in rows:
            row["objects"]["category"] = [number + 1 for number in row["objects"]["category"]]

    # numbers without names have no such limit: they are numbered anew
    numbers = load_box_data(table(change, category=Value("int64")), validation_fraction=0.2, test_fraction=0)
    assert numbers.classes.source_ids == (1, 2, 3)
    assert {number for row in numbers.train["classes"] for number in row} <= {0, 1, 2}
    assert ClassLabel(names=list("abc")).num_classes == 3


def test_formats_of_tables_are_guessed_reported_and_may_be_stated(table):
    def corners(rows):
        for row in rows:
            row["objects"]["bbox"] = [[x, y, x + w, y + h] for x, y, w, h in row["objects"]["bbox"]]

    wanted = load_box_data(table(), validation_fraction=0.2, test_fraction=0)
    for options in ({}, {"box_format": "xyxy"}):
        data = load_box_data(table(corners), validation_fraction=0.2, test_fraction=0, **options)
        assert data.train["boxes"] == wanted.train["boxes"]
    noted = load_box_data(table(corners), validation_fraction=0.2, test_fraction=0).notes
    assert any("were read as xyxy pixels" in note for note in noted)
    with pytest.raises(DataError, match="not xywh pixels, the named format"):
        load_box_data(table(corners), box_format="xywh")


def test_splits_in_different_formats_are_refused(table):
    def relative(rows):
        for row in rows:
            size = [row["width"], row["height"]] * 2
            row["objects"]["bbox"] = [[v / s for v, s in zip(b, size, strict=True)] for b in row["objects"]["bbox"]]

    both = DatasetDict(train=table(), validation=table(relative))
    with pytest.raises(DataError, match=r"those of split 'train' are xywh pixels"):
        load_box_data(both)


def test_images_with_more_boxes_than_queries_are_told(coco):
    file = coco()
    with pytest.raises(DataError, match=r"3\.png\): number of boxes is 3: the model has 2 queries"):
        load_box_data(file, num_queries=2)
    load_box_data(file, num_queries=3)
    load_box_data(coco(annotation(3, iscrowd=1), folder="crowded"), num_queries=3)


@pytest.fixture
def turned(coco, scenes):
    """A COCO file whose first image is stored turned, with EXIF that turns it back."""

    def make(declared, boxes="upright", orientation=6):
        file = coco(annotation(0, bbox=[4, 6, 16, 24] if boxes == "upright" else [6, 44, 24, 16]))
        content = json.loads(file.read_text())
        content["images"][0]["width"], content["images"][0]["height"] = declared or (64, 48)
        if declared is None:
            del content["images"][0]["width"]
        content["annotations"] = content["annotations"][:1] + content["annotations"][2:]
        file.write_text(json.dumps(content))
        picture = file.parent / "images" / "0.png"
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(picture) as opened:
            stored = opened.rotate(90, expand=True) if orientation == 6 else opened.rotate(180)
        stored.save(picture, exif=exif)
        return file

    return make


def test_boxes_of_turned_images_follow_the_size_that_is_stated(turned):
    for file in (turned((64, 48)), turned((48, 64), boxes="stored")):
        checked = inspect_boxes(read_box_source(file))
        guard(checked)
        first = checked.images["all"][0]
        assert (first.width, first.height) == (64, 48)
        assert first.boxes.tolist() == [[4, 6, 20, 30]]
    assert checked.faults.counts["turned boxes"] == 1


@pytest.mark.parametrize(("declared", "orientation"), [(None, 6), ((64, 48), 3)])
def test_boxes_of_turned_images_that_nothing_places_are_refused_until_it_is_stated(turned, declared, orientation):
    file = turned(declared, orientation=orientation)
    with pytest.raises(DataError, match=r"EXIF orientation is \d: turns the image, and nothing says"):
        load_box_data(file)
    checked = inspect_boxes(read_box_source(file), boxes_on="upright")
    guard(checked)
    assert checked.images["all"][0].boxes.tolist() == [[4, 6, 20, 30]]
    if orientation == 3:
        stored = inspect_boxes(read_box_source(file), boxes_on="stored").images["all"][0]
        assert stored.boxes.tolist() == [[64 - 20, 48 - 30, 64 - 4, 48 - 6]]


def test_warnings_do_not_stop_training(coco):
    def change(content):
        content["annotations"].append({**content["annotations"][0], "id": 99})
        content["annotations"].append({**content["annotations"][4], "id": 0, "area": 99999})
        content["annotations"].append({**content["annotations"][5], "id": 2})
        content["categories"].append({"id": 91, "name": "never"})

    file = coco(change)
    counts = inspect_boxes(read_box_source(file)).faults.counts
    expected = {"duplicate box": 3, "annotation id 0": 1, "duplicate annotation id": 1, "large area": 1,
                "unused class": 1}  # fmt: skip
    assert {kind: count for kind, count in counts.items() if KINDS[kind][0] != "error"} == expected
    load_box_data(file)


def test_the_report_counts_and_its_pictures_show(table, tmp_path):
    def change(rows):
        rows[0]["objects"]["bbox"][1] = [50, 30, 40, 10]
        rows[2]["image"] = rows[1]["image"]
        rows[2]["width"], rows[2]["height"] = 48, 64

    report = check_data(DatasetDict(train=table(change), test=table()), output=tmp_path / "report")
    assert not report.usable
    train, test = report.splits()
    assert (train["images"], train["without_boxes"], train["boxes"], train["most_boxes"]) == (8, 1, 14, 3)
    assert [row["boxes"] for row in report.classes()] == [{"train": 6, "test": 6}, {"train": 5, "test": 5},
                                                         {"train": 3, "test": 3}]  # fmt: skip
    found = {fault["kind"]: fault["count"] for fault in report.faults()}
    assert found == {"box partly outside": 1, "same image twice": 8, "missing area": 2}
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["faults"][1]["examples"][0]["place"] == "row 0: objects.bbox[1]"
    with Image.open(tmp_path / "report" / "fault-box-partly-outside.png") as picture:
        colors = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}
    assert (0xD5, 0x5E, 0x00) in colors
    assert {file.name for file in (tmp_path / "report").glob("samples-*")} == {"samples-train.png", "samples-test.png"}
    assert test["format"].startswith("xywh pixels")


def test_the_command_prints_the_report_and_tells_by_its_code(coco, tmp_path, capsys):
    good, bad = coco(), coco(annotation(1, bbox=[30, 10, 0, 30]), folder="bad")
    assert run(lambda: app(["check-data", str(good)])) == 0
    assert "can be trained on" in capsys.readouterr().out
    assert run(lambda: app(["check-data", str(bad), "--output", str(tmp_path / "report")])) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "repairable: 1 x degenerate box" in told
    assert "annotations[1].bbox is [30, 10, 0, 30]: it is 0 x 30 pixels" in told
    assert (tmp_path / "report" / "fault-degenerate-box.png").is_file()
    assert run(lambda: app(["check-data", str(bad), "--output", str(tmp_path / "report")])) == 1
    assert "holds files already" in capsys.readouterr().err
    look = ["check-data", str(good), "--augmentation", "light", "--shortest", "96"]
    assert run(lambda: app([*look, "--output", str(tmp_path / "look")])) == 0
    assert (tmp_path / "look" / "augmented.png").is_file()
    assert run(lambda: app(look)) == 2
    capsys.readouterr()
    assert run(lambda: app(["check-data", str(bad), "--repair", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["classes"][2]["id"] == 90
    assert run(lambda: app(["check-data", str(tmp_path / "nothing")])) == 1
    assert run(lambda: app(["check-data", str(good), "--boxes-on", "left"])) == 2
    assert run(lambda: app(["check-data", str(good), "--box-format", "xywz"])) == 1
    assert "a box format is one of" in capsys.readouterr().err
    assert str(BoxFormat()) == "xywh pixels"


def test_real_blood_cells_can_be_trained_on(real_files):
    report = check_data(real_files / "data" / "bccd")
    assert report.usable
    assert [row["boxes"] for row in report.splits()] == [2804, 1137, 945]
    assert {fault["kind"] for fault in report.faults()} <= {"annotation id 0"}
