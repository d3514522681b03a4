"""Report on the content and the faults of a data set of boxes, as `vithub check-data` prints and saves it."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..argument_names import renamed
from ..images import BadImageError, decode_image, encoded_bytes
from ..seeding import derived_generator
from ..sources import DataError
from ..splits import find_splits
from ..text.json_text import json_text
from .checks import Inspection, Pixels, inspect_boxes
from .formats import BoxFormat
from .pictures import CROWD, color_of, contact_sheet, draw_boxes
from .sources import read_box_source
from .tables import ImageBoxes

SMALL, LARGE = 32**2, 96**2  # square pixels, the limits of COCO
SAMPLES, DRAWN = 9, 6  # numbers of images in the pictures of a split and of a kind of fault


@dataclass
class BoxReport:
    """Report on a checked data set: counts, faults and pictures.

    Args:
        checked: Result of checking the data set.
        repair: Whether training may repair boxes, so that repairable faults are allowed.
    """

    checked: Inspection
    repair: bool = False

    @property
    def usable(self) -> bool:
        """True if no fault is an error, so that the data set can be trained on as it is."""
        return not self.checked.faults.total(*(("error",) if self.repair else ("error", "repairable")))

    def splits(self) -> list[dict[str, Any]]:
        """Counts of each split, and the range of its image sizes.

        The counts are of images, images without boxes, boxes, crowds, boxes in the fullest image, and boxes by size.
        """
        return [self._split(name, images) for name, images in self.checked.images.items()]

    def _split(self, name: str, images: list[ImageBoxes | None]) -> dict[str, Any]:
        good = [image for image in images if image is not None]
        area = np.concatenate([image.area for image in good]) if good else np.empty(0)
        widths, heights = [image.width for image in good], [image.height for image in good]
        return {
            "split": name,
            "images": len(images),
            "without_boxes": sum(len(image) == 0 for image in good),
            "boxes": len(area),
            "crowds": int(sum(image.crowd.sum() for image in good)),
            "most_boxes": max((int((~image.crowd).sum()) for image in good), default=0),
            "small": int((area < SMALL).sum()),
            "medium": int(((area >= SMALL) & (area < LARGE)).sum()),
            "large": int((area >= LARGE).sum()),
            "width": [min(widths, default=0), max(widths, default=0)],
            "height": [min(heights, default=0), max(heights, default=0)],
            "format": str(self.checked.guesses[name]),
        }

    def classes(self) -> list[dict[str, Any]]:
        """Number, source id and name of each class, with its counts of boxes and images in each split."""
        boxes: dict[str, Counter[int]] = {}
        images: dict[str, Counter[int]] = {}
        for split, checked in self.checked.images.items():
            good = [image for image in checked if image is not None]
            boxes[split] = Counter(int(number) for image in good for number in image.classes)
            images[split] = Counter(int(number) for image in good for number in set(image.classes.tolist()))
        return [
            {
                "number": number, "id": key, "name": name,
                "boxes": {split: counts[number] for split, counts in boxes.items()},
                "images": {split: counts[number] for split, counts in images.items()},
            }
            for number, (key, name) in enumerate(self.checked.source.categories.items())
        ]  # fmt: skip

    def faults(self, examples: int = 3) -> list[dict[str, Any]]:
        """Severity, description, count and some examples of each kind of fault, most severe kinds first."""
        return self.checked.faults.by_kind(examples)

    def to_dict(self) -> dict[str, Any]:
        """Whole report as plain data."""
        source = self.checked.source
        return {
            "name": source.name, "kind": source.kind, "usable": self.usable, "splits": self.splits(),
            "classes": self.classes(), "faults": self.faults(), "notes": source.notes,
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Writes `report.json`, `samples-SPLIT.png` with boxes, and `fault-KIND.png` with the boxes at fault."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json_text(self.to_dict(), indent=1, default=str) + "\n", encoding="utf-8")
        for split in self.checked.images:
            if (picture := self.samples(split)) is not None:
                picture.save(folder / f"samples-{split}.png")
        for kind in self.checked.faults.counts:
            if (picture := self.fault_picture(kind)) is not None:
                picture.save(folder / f"fault-{kind.replace(' ', '-')}.png")

    def samples(self, split: str) -> Image.Image | None:
        """Picture of some images of a split with boxes, chosen by a fixed seed; None where no image can be decoded."""
        images = self.checked.images[split]
        rows = derived_generator(0).permutation(len(images))
        pictures, titles = [], []
        for row in map(int, rows):
            image = images[row]
            if image is None or (pixels := self._pixels(split, row)) is None:
                continue
            names = list(self.checked.source.categories.values())
            colors = [CROWD if crowd else color_of(int(n)) for n, crowd in zip(image.classes, image.crowd, strict=True)]
            pictures.append(draw_boxes(pixels, image.boxes, [names[n] for n in image.classes], colors))
            titles.append(self.checked.source.splits[split].images[row].place)
            if len(pictures) == SAMPLES:
                break
        return contact_sheet(pictures, titles) if pictures else None

    def fault_picture(self, kind: str) -> Image.Image | None:
        """Picture of some images with the boxes of a kind of fault; None where the kind has nothing to show."""
        pictures, titles = [], []
        for fault in self.checked.faults.of_kind(kind):
            if fault.row is None or kind in ("missing area", "annotation id 0", "bad image"):
                continue
            if (pixels := self._pixels(fault.split, fault.row)) is None:
                continue
            own = self.checked.images[fault.split][fault.row]
            others = own.boxes if own is not None else np.empty((0, 4))
            at_fault = np.array([fault.box]) if fault.box is not None else np.empty((0, 4))
            boxes = np.concatenate([others, at_fault])
            colors = [CROWD] * len(others) + [color_of(5)] * len(at_fault)
            pictures.append(draw_boxes(_with_margin(pixels, boxes), _moved(pixels, boxes), None, colors))
            titles.append(str(fault))
            if len(pictures) == DRAWN:
                break
        return contact_sheet(pictures, titles) if pictures else None

    def _pixels(self, split: str, row: int) -> Image.Image | None:
        raw = self.checked.source.splits[split]
        try:
            return decode_image(raw.encoded(row), raw.images[row].place)
        except BadImageError:
            return None


@renamed(source="data", out="output")
def check_data(
    data: Any,
    *,
    output: str | Path | None = None,
    num_queries: int | None = None,
    repair: bool = False,
    box_format: str | None = None,
    boxes_on: Pixels | None = None,
    headers_only: bool = False,
    **columns: Any,
) -> BoxReport:
    """Checks a data set of boxes: every image and box, formats, classes, ids, areas, images that occur twice.

    Args:
        data: Data set with boxes: files of COCO, Pascal VOC or YOLO, or a table with a column of objects; see
            `read_box_source`.
        output: Folder to write `report.json` and pictures into; None writes nothing.
        num_queries: Number of queries of the model that is to be trained; None skips the check of it.
        repair: Whether training may clip and leave out boxes; see `load_box_data`.
        box_format: Format of the boxes, such as "xyxy pixels"; None takes the usual one of the kind of data set, or
            the one that fits.
        boxes_on: Pixels that boxes refer to where EXIF turns an image, "upright" or "stored"; see `inspect_boxes`.
        headers_only: Whether to read only the headers of the images and not decode them, which is faster but misses
            damaged and truncated pixels.
        **columns: `objects_column`, `image_column` and `revision` of `read_box_source`.

    Raises:
        DataError: The source cannot be read at all.
    """
    raw = read_box_source(data, **columns)
    form = None if box_format is None else BoxFormat.parse(box_format)
    checked = inspect_boxes(
        raw, box_format=form, boxes_on=boxes_on, num_queries=num_queries, decode=not headers_only
    )  # fmt: skip
    _check_boxes(checked)
    _check_repeated_images(checked)
    report = BoxReport(checked, repair)
    if output is not None:
        report.save(Path(output).expanduser())
    return report


def _training_split(checked: Inspection) -> tuple[str | None, bool]:
    """Name of the training split, None where no split has such a name, and whether others will be drawn from it."""
    try:
        found = find_splits({name: name for name in checked.images}, {})
    except DataError:
        return None, False
    return found["train"], "validation" not in found


def _check_boxes(checked: Inspection) -> None:
    """Logs an error where the training split, or the whole data set, has no box."""
    train, _ = _training_split(checked)
    splits = checked.source.splits if train is None else {train: checked.source.splits[train]}
    if any(image.objects for split in splits.values() for image in split.images):
        return
    for name, split in splits.items():
        message = f"none of the {len(split.images)} images has a box; a detector has nothing to learn from them"
        checked.faults.add("no boxes", name, "number of boxes", 0, message)


def _check_repeated_images(checked: Inspection) -> None:
    """Logs images with the same bytes in two splits, or twice in one."""
    seen: dict[bytes, tuple[str, str]] = {}
    train, divided = _training_split(checked)
    for name, split in checked.source.splits.items():
        for row, image in enumerate(split.images):
            if checked.images[name][row] is None:
                continue
            content = encoded_bytes(split.encoded(row))
            first = seen.setdefault(hashlib.blake2b(content, digest_size=16).digest(), (name, image.place))
            if first == (name, image.place):
                continue
            kind, message = "same image twice", f"the same image is {first[1]} of split {first[0]!r}: "
            if first[0] != name:
                message += "what is tested on was trained on; remove one"
            elif name == train and divided:
                message += (
                    "the split is divided into one to train on and others, which may each get one of them; remove one"
                )
            else:
                kind, message = "repeated image", f"the same image is {first[1]} of the same split"
            checked.faults.add(kind, name, image.place, str(image.image_id), message, row)


def _with_margin(image: Image.Image, boxes: np.ndarray) -> Image.Image:
    """Image within a grey margin that shows boxes beyond it, up to the image's own size on each side."""
    left, top = _margin(image, boxes)
    if not left and not top:
        return image
    canvas = Image.new("RGB", (image.width + 2 * left, image.height + 2 * top), "#888888")
    canvas.paste(image, (left, top))
    return canvas


def _moved(image: Image.Image, boxes: np.ndarray) -> np.ndarray:
    left, top = _margin(image, boxes)
    return boxes + np.array([left, top, left, top])


def _margin(image: Image.Image, boxes: np.ndarray) -> tuple[int, int]:
    beyond = [0.0, 0.0]
    for box in boxes:
        beyond[0] = max(beyond[0], -box[0], box[2] - image.width)
        beyond[1] = max(beyond[1], -box[1], box[3] - image.height)
    return min(image.width, round(beyond[0])), min(image.height, round(beyond[1]))


__all__ = ["BoxReport", "check_data"]
