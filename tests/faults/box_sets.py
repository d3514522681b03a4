"""Data sets of boxes with wrong ids, values, types and files, as COCO, Pascal VOC, YOLO and tables."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import damaging, stock
from .calling import command
from .case import Case, Place

AREA = "data sets of boxes"
NAN = float("nan")
WRONG: dict[str, Any] = {
    "null": None, "true": True, "text": "x", "empty text": "", "a list": [1], "an object": {"a": 1}, "-1": -1,
    "2**64": 2**64, "NaN": NAN, "infinity": float("inf"), "1.5": 1.5,
}  # fmt: skip
BOXES: dict[str, Any] = {
    "null": None, "a number": 5, "text": "1 2 3 4", "empty": [], "three numbers": [1, 2, 3],
    "five numbers": [1, 2, 3, 4, 5], "texts": ["1", "2", "30", "20"], "NaN": [NAN, 2, 3, 4],
    "infinity": [1, 2, float("inf"), 4], "negative width": [10, 10, -5, 5], "no area": [10, 10, 0, 0],
    "outside": [500, 500, 10, 10], "across the border": [50, 30, 60, 60], "nested": [[1, 2, 3, 4]],
    "huge": [1e300, 1e300, 1, 1], "an object": {"x": 1}, "nulls": [None] * 4, "booleans": [True] * 4,
    "negative corner": [-20, -20, 30, 30],
}  # fmt: skip
# Fields of a COCO file; a reader can do without the last ones.
FIELDS: dict[str, tuple[tuple[Any, ...], bool]] = {
    "images": (("images",), True),
    "annotations": (("annotations",), True),
    "categories": (("categories",), True),
    "image": (("images", 1), True),
    "annotation": (("annotations", 1), True),
    "category": (("categories", 1), True),
    "image id": (("images", 1, "id"), True),
    "file name": (("images", 1, "file_name"), True),
    "image width": (("images", 1, "width"), False),
    "image height": (("images", 1, "height"), False),
    "image_id": (("annotations", 1, "image_id"), True),
    "category_id": (("annotations", 1, "category_id"), True),
    "annotation id": (("annotations", 1, "id"), False),
    "area": (("annotations", 1, "area"), False),
    "iscrowd": (("annotations", 1, "iscrowd"), False),
    "category id": (("categories", 1, "id"), True),
    "category name": (("categories", 1, "name"), True),
}
# Values that mean what they are: an id may be any whole number or text, as long as it is one.
_FITTING = {("category name", what) for what in ("text", "-1", "1.5", "2**64")} | {("area", "1.5")}


def _boxes(file: Path) -> dict[str, list[Any]]:
    """All boxes as read for training, by split."""
    from vithub.data.boxes.checks import inspect_boxes
    from vithub.data.boxes.loading import guard
    from vithub.data.boxes.sources import read_box_source

    checked = inspect_boxes(read_box_source(file))
    guard(checked)
    names = list(checked.source.categories.values())
    return {
        split: [[[round(float(v), 3) for v in box], names[number]] for image in images
                for box, number in zip(image.boxes, image.classes, strict=True)]
        for split, images in checked.images.items()
    }  # fmt: skip


def _check(name: str, place: Place) -> Any:
    target = place.folder / "set" / name if name else place.folder / "set"
    said = command("check-data", target)
    return said, _boxes(target), _boxes(stock.coco(place.shared))


def _same_boxes(answer: Any, told_of: str = "") -> str | None:
    """The boxes are those of the whole set, or the report names the file from which some are missing."""
    said, found, whole = answer
    if list(found.values()) == list(whole.values()) or (told_of and told_of in said):
        return None
    return f"can be trained on, with other boxes than the whole set has: {str(next(iter(found.values())))[:120]}"


def _accepted(answer: Any) -> str:
    return "is said to be fit for training"


def _coco_case(name: str, change: Callable[[dict[str, Any]], Any], names: tuple[str, ...], right: Any, short: bool,
               fault: bool = False) -> Case:  # fmt: skip
    def prepare(place: Place) -> None:
        damaging.copy(stock.coco(place.shared), place.folder / "set")
        content = copy.deepcopy(stock.coco_content())
        changed = change(content)
        (place.folder / "set" / "annotations.json").write_text(json.dumps(content if changed is None else changed))
        place.keep(place.folder / "set")

    return Case(AREA, f"COCO, {name}", f"vithub check-data annotations.json  ({name})",
                partial(_check, "annotations.json"), prepare, right, names, fault, 30, short)  # fmt: skip


def _put(path: tuple[Any, ...], value: Any, content: dict[str, Any]) -> None:
    inner: Any = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value


def _remove(path: tuple[Any, ...], content: dict[str, Any]) -> None:
    inner: Any = content
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]


def _coco() -> Iterator[Case]:
    for field, (path, needed) in FIELDS.items():
        last = str(path[-1]) if isinstance(path[-1], str) else str(path[0])
        for what, value in WRONG.items():
            fits = (field, what) in _FITTING
            right = (lambda answer: None) if fits else _same_boxes
            yield _coco_case(f"{field} is {what}", partial(_put, path, value), (last, "annotations.json"), right,
                             field in ("image_id", "category id") and what in ("null", "a list", "NaN"))  # fmt: skip
        if not isinstance(path[-1], int):
            right = _accepted if needed else _same_boxes
            yield _coco_case(f"{field} is missing", partial(_remove, path), (last, "annotations.json"), right, False)
    for what, box in BOXES.items():
        yield _coco_case(f"box is {what}", partial(_put, ("annotations", 1, "bbox"), box),
                         ("bbox", "annotations.json", "annotations[1]", "box"), _same_boxes, what == "NaN")  # fmt: skip
    for what, damage in {**damaging.DAMAGES, **damaging.JSON_FORMS}.items():
        yield _file_case("COCO", "annotations.json", what, damage, "coco")
    for what, change in CHANGES.items():
        yield _coco_case(what, change, ("annotations.json", "images", "annotations", "categories", ".png"), _accepted,
                         False)  # fmt: skip


def _swapped(content: dict[str, Any]) -> None:
    for note in content["annotations"]:
        left, top, width, height = note["bbox"]
        note["bbox"] = [top, left, height, width]


# Sets that are wrong as a whole.
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "two images of one id": partial(_put, ("images", 1, "id"), 100),
    "two categories of one id": partial(_put, ("categories", 1, "id"), 3),
    "two categories of one name": partial(_put, ("categories", 1, "name"), "bird"),
    "two images of one file": partial(_put, ("images", 1, "file_name"), "0.png"),
    "an image that is not there": partial(_put, ("images", 1, "file_name"), "none.png"),
    "a file above the folder": partial(_put, ("images", 1, "file_name"), "../../../../etc/passwd"),
    "an absolute file": partial(_put, ("images", 1, "file_name"), "/etc/passwd"),
    "width and height swapped": lambda c: [i.update(width=i["height"], height=i["width"]) for i in c["images"]] and c,
    "axes of boxes swapped": _swapped,
    "boxes of no image": partial(_put, ("annotations", 1, "image_id"), 999),
    "boxes of no category": partial(_put, ("annotations", 1, "category_id"), 999),
    "no annotations at all": partial(_put, ("annotations",), []),
    "no images at all": partial(_put, ("images",), []),
    "no categories at all": partial(_put, ("categories",), []),
}


SHORT = {("VOC", "missing"), ("VOC", "with name ' '"), ("YOLO", "a folder")}


def _file_case(kind: str, file: str, what: str, damage: damaging.Damage, stocked: str) -> Case:
    """A damaged file of a data set."""

    def prepare(place: Place) -> None:
        damaging.copy(_SETS[stocked](place.shared), place.folder / "set")
        damaging.apply(damage, place.folder / "set" / file)
        place.keep(place.folder / "set")

    target = file if stocked == "coco" else ""
    # a folder without the file may be named as a whole
    names = (Path(file).name, Path(file).stem, "set")
    return Case(AREA, f"{kind}, {file} {what}", f"vithub check-data SET  ({file} {what})", partial(_check, target),
                prepare, partial(_same_boxes, told_of=Path(file).name), names, True, 30,
                kind != "COCO" and (what == "cut in half" or (kind, what) in SHORT))  # fmt: skip


def _voc(shared: Path) -> Path:
    def make(folder: Path) -> None:
        (folder / "Annotations").mkdir(parents=True)
        stock.scene_images(folder / "JPEGImages")
        for number, ((width, height), objects) in enumerate(stock.SCENES):
            boxes = "".join(
                f"<object><name>{stock.CLASSES[category]}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin>"
                f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                for (left, top, right, bottom), category in objects
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            text = f"<annotation><filename>{number}.png</filename>{size}{boxes}</annotation>"
            (folder / "Annotations" / f"{number}.xml").write_text(text)

    return stock.made(shared, "voc", make)


def _yolo(shared: Path) -> Path:
    def make(folder: Path) -> None:
        stock.scene_images(folder / "images" / "train")
        (folder / "labels" / "train").mkdir(parents=True)
        for number, ((width, height), objects) in enumerate(stock.SCENES):
            lines = [
                f"{category} {(left + right) / 2 / width:.9f} {(top + bottom) / 2 / height:.9f} "
                f"{(right - left) / width:.9f} {(bottom - top) / height:.9f}"
                for (left, top, right, bottom), category in objects
            ]
            (folder / "labels" / "train" / f"{number}.txt").write_text("\n".join(lines) + "\n")
        (folder / "data.yaml").write_text(f"train: images/train\nnc: 3\nnames: [{', '.join(stock.CLASSES)}]\n")

    return stock.made(shared, "yolo", make)


_SETS = {"coco": stock.coco, "voc": _voc, "yolo": _yolo}
# What stands in a Pascal VOC file, and what may stand there instead.
_VOC_TEXTS = {
    "xmin": ["", "x", "nan", "inf", "-5", "1e400", "<a/>", "99999", "0x10", "3,5"],
    "name": ["", "<a/>", " "],
    "width": ["", "x", "nan", "0", "-3", "1e9"],
    "filename": ["", "none.png", "../../../etc/passwd", "<a/>"],
}
# Lines of a YOLO file.
_YOLO_LINES = [
    "x", "0", "0 0.5 0.5 0.2", "0 nan 0.5 0.2 0.2", "0 inf 0.5 0.2 0.2",
    "-1 0.5 0.5 0.2 0.2", "99 0.5 0.5 0.2 0.2", "0.5 0.5 0.5 0.2 0.2", "cat 0.5 0.5 0.2 0.2", "0 0.5 0.5 -0.2 0.2",
    "0 0.5 0.5 0 0", "0 9 9 0.2 0.2", "0 32 24 10 10", "0,0.5,0.5,0.2,0.2", "0 0.5 0.5 0.2 0.2 0.2",
    "1e400 0.5 0.5 0.2 0.2", "0 0x1p-1 0.5 0.2 0.2", "\x00\x01",
]  # fmt: skip
_YAMLS = {
    "null": "null", "a list": "[1]", "text": "abc", "names a number": "train: images/train\nnames: 3",
    "names null": "train: images/train\nnames:", "names of objects": "train: images/train\nnames: [{a: 1}]",
    "names with a gap": "train: images/train\nnames: {0: a, 5: b}",
    "nc is text": "train: images/train\nnc: x\nnames: [a]",
    "nc contradicts": "train: images/train\nnc: 9\nnames: [bird, cat, dog]",
    "train null": "train:\nnames: [bird, cat, dog]",
    "train a number": "train: 5\nnames: [bird, cat, dog]", "train nowhere": "train: nowhere\nnames: [bird, cat, dog]",
    "names twice": "train: images/train\nnames: [bird, bird, cat]", "broken": "train: [", "a Python object":
    "train: !!python/object/apply:os.getpid []\nnames: [a]",
    "train an object": "train: {a: 1}\nnames: [bird, cat, dog]",
}  # fmt: skip


def _voc_change(field: str, value: str, file: Path) -> None:
    text = file.read_text()
    begin = text.index(f"<{field}>") + len(field) + 2
    file.write_text(text[:begin] + value + text[text.index(f"</{field}>") :])


def cases(seed: int) -> Iterator[Case]:
    """COCO by field, Pascal VOC and YOLO by text, damaged files of each, and drawn changes of several places."""
    yield from _coco()
    for what, damage in damaging.DAMAGES.items():
        for kind, file in (("VOC", "Annotations/1.xml"), ("YOLO", "labels/train/1.txt"), ("YOLO", "data.yaml")):
            if (kind, file, what) not in _NO_FAULT:
                yield _file_case(kind, file, what, damage, kind.lower())
        yield _file_case("COCO", "images/1.png", what, damage, "coco")
    for field, values in _VOC_TEXTS.items():
        for value in values:
            yield _file_case("VOC", "Annotations/1.xml", f"with {field} {value!r}",
                             partial(_voc_change, field, value), "voc")  # fmt: skip
    for line in _YOLO_LINES:
        yield _file_case("YOLO", "labels/train/1.txt", f"line {line!r}", damaging.text(line), "yolo")
    for what, content in _YAMLS.items():
        yield _file_case("YOLO", "data.yaml", f"is {what}", damaging.text(content), "yolo")
    draws = random.Random(seed)
    fields = [path for path, _ in FIELDS.values()]
    for number in range(120):
        places = draws.sample(fields, 2)
        values = [draws.choice(list(WRONG.values())) for _ in places]
        yield _coco_case(
            f"drawn {number}", partial(_several, places, values), ("annotations.json",), _same_boxes, False
        )


def _several(places: list[tuple[Any, ...]], values: list[Any], content: dict[str, Any]) -> None:
    for path, value in sorted(zip(places, values, strict=True), key=lambda pair: -len(pair[0])):
        _put(path, value, content)


# An image without a file of boxes is one without boxes in YOLO, and an empty file says the same. A file that was cut
# at the end of a line is one of fewer boxes. Without `data.yaml` classes are numbers.
_NO_FAULT = {("YOLO", "labels/train/1.txt", what) for what in ("missing", "empty", "without its last byte")} | {
    ("YOLO", "data.yaml", "missing"), ("YOLO", "data.yaml", "without its last byte")
}  # fmt: skip

__all__ = ["cases"]
