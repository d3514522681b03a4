"""Validation of boxes against their images, which reports every fault with its location."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..argument_names import argument, stated
from ..image_headers import ImageHeader, read_headers, turn_boxes
from ..images import BadImageError, shown_path
from .faults import FaultLog
from .formats import BoxFormat, FormatGuess, guess_format
from .rows import RawBoxes, RawBoxSplit, RawImage, RawObject
from .tables import ImageBoxes

Pixels = Literal["upright", "stored"]
ROUNDING = 1.0  # pixels that a box may reach beyond its image


@dataclass
class Inspection:
    """Result of checking a data set.

    Args:
        source: Data set as it was read.
        guesses: Format of the boxes of each split.
        images: Boxes of each image of each split; None for an image that cannot be used.
        faults: Log of all faults.
    """

    source: RawBoxes
    guesses: dict[str, FormatGuess] = field(default_factory=dict)
    images: dict[str, list[ImageBoxes | None]] = field(default_factory=dict)
    faults: FaultLog = field(default_factory=FaultLog)


@dataclass
class _Frame:
    """Pixels that an image's boxes refer to: their size (width, height), and whether boxes must be turned upright."""

    header: ImageHeader
    size: tuple[int, int]
    turned: bool = False


def inspect_boxes(
    source: RawBoxes,
    *,
    box_format: BoxFormat | None = None,
    boxes_on: Pixels | None = None,
    num_queries: int | None = None,
    log: FaultLog | None = None,
    decode: bool = False,
) -> Inspection:
    """Checks every image and box of a data set.

    Args:
        source: Data set as it was read.
        box_format: Format of the boxes; None takes the usual one of the kind of data set, or the one that fits.
        boxes_on: Pixels that boxes refer to where EXIF turns an image and the annotations do not tell: "upright", the
            image as viewers show it, or "stored", the pixels as they are stored. None makes such images faults.
        num_queries: Number of queries of the model, the largest number of boxes that it finds; None skips the check.
        log: Log that faults are added to; None creates one.
        decode: Whether to decode every image, which finds damaged and truncated ones; otherwise only headers are read.
    """
    result = Inspection(source, faults=log or FaultLog())
    keys = {str(key): number for number, key in enumerate(source.categories)}
    for name, split in source.splits.items():
        checker = _SplitChecker(result, name, split, keys, boxes_on, num_queries)
        result.images[name] = checker.run(box_format, decode)
    _compare_formats(result)
    _check_classes(result)
    return result


class _SplitChecker:
    def __init__(
        self,
        result: Inspection,
        name: str,
        split: RawBoxSplit,
        keys: dict[str, int],
        boxes_on: Pixels | None,
        num_queries: int | None,
    ) -> None:
        self.result, self.name, self.split, self.keys = result, name, split, keys
        self.boxes_on, self.num_queries = boxes_on, num_queries
        self.faults, self.source = result.faults, result.source
        self.numbers = {key: number for number, key in enumerate(self.source.categories)}
        self.without_area: list[tuple[str, int]] = []
        self.usable_boxes = 0

    def run(self, box_format: BoxFormat | None, decode: bool) -> list[ImageBoxes | None]:
        images = self.split.images
        headers = read_headers(self.split.encoded, [image.place for image in images], decode=decode)
        frames = [
            self._frame(row, image, header) for row, (image, header) in enumerate(zip(images, headers, strict=True))
        ]
        guess = self._guess(frames, box_format)
        self.result.guesses[self.name] = guess
        self._check_ids()
        checked = []
        for row, (image, frame) in enumerate(zip(images, frames, strict=True)):
            checked.append(None if frame is None else self._image(row, image, frame, guess.format))
        self._note_areas()
        return checked

    def _add(self, kind: str, place: str, value: Any, message: str | None = None, **where: Any) -> None:
        self.faults.add(kind, self.name, place, value, message, **where)

    def _frame(self, row: int, image: RawImage, header: ImageHeader | BadImageError) -> _Frame | None:
        if isinstance(header, BadImageError):
            file = "in the table" if image.file is None else shown_path(image.file)
            self._add("bad image", f"{image.place}: image", file, str(header), row=row)
            return None
        declared = _size(image.declared)
        upright, stored = header.upright, header.stored
        if image.declared is not None and declared not in (upright, stored):
            message = self._size_message(declared, header)
            self._add("image size", f"{image.place}: width, height", image.declared, message, row=row)
            return None
        if header.orientation == 1 or (declared == upright and declared != stored) or not image.objects:
            return _Frame(header, upright)
        if declared == stored and declared != upright:
            self._add("turned boxes", f"{image.place}: EXIF orientation", header.orientation, row=row)
            return _Frame(header, stored, turned=True)
        if self.boxes_on is None:
            self._add("exif rotation", f"{image.place}: EXIF orientation", header.orientation,
                      "turns the image, and nothing says which pixels its boxes are on: state it with "
                      f"{argument('boxes_on')} (upright, as viewers show the image, or stored)", row=row)  # fmt: skip
            return None
        return _Frame(header, upright if self.boxes_on == "upright" else stored, self.boxes_on == "stored")

    def _size_message(self, declared: Any, header: ImageHeader) -> str:
        width, height = header.upright
        message = f"the image is {width} x {height} pixels"
        if declared == (height, width):
            return f"{message}: width and height are swapped, or the image was turned after it was annotated"
        return f"{message}: it was resized after it was annotated, or this is another image"

    def _guess(self, frames: list[_Frame | None], box_format: BoxFormat | None) -> FormatGuess:
        boxes, sizes, areas = [], [], []
        for image, frame in zip(self.split.images, frames, strict=True):
            if frame is None:
                continue
            for item in image.objects:
                if _four_numbers(item.box):
                    boxes.append([float(value) for value in item.box])
                    sizes.append(frame.size)
                    areas.append(float(item.area) if _finite(item.area) else math.nan)
        usual = box_format or self.source.usual
        guess = guess_format(
            np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(sizes, dtype=np.float64).reshape(-1, 2), usual,
            np.array(areas, dtype=np.float64),
        )  # fmt: skip
        found = guess.format
        fixed = box_format is not None or self.source.kind != "objects"
        if found != usual and (found.order.startswith("y") or (fixed and guess.contradicts)):
            kind = "swapped axes" if found.order.startswith("y") else "box format"
            whose = "named" if box_format else f"{self.source.kind}'s"
            self._add(kind, "boxes", str(found), f"{self.source.kind} boxes that look like {guess}, not {usual}, the "
                      f"{whose} format; if they are, state it: {stated(box_format=str(found))}")  # fmt: skip
        elif fixed:
            guess = FormatGuess(usual, usual, guess.shares, guess.boxes, guess.rivals, guess.contradicts)
        if box_format is None and guess.rivals and guess.boxes >= 4:
            self._add("ambiguous format", "boxes", str(guess.format), f"they were read as {guess.format} but fit "
                      f"{' and '.join(guess.rivals)} too; look at the pictures, or state "
                      f"{argument('box_format')}")  # fmt: skip
        return guess

    def _check_ids(self) -> None:
        seen: dict[str, str] = {}
        numbers: dict[Any, str] = {}
        for row, image in enumerate(self.split.images):
            place = f"{image.place}: image id"
            if image.image_id is None:
                self._add("missing image id", place, None, row=row)
            elif (other := seen.setdefault(str(image.image_id), image.place)) != image.place:
                self._add("duplicate image id", place, image.image_id, f"is that of {other} too", row=row)
            for item in image.objects:
                if item.number is None:
                    continue
                where = f"{image.place}: {item.place}"
                if item.number == 0:
                    self._add("annotation id 0", where, 0, row=row)
                if (first := numbers.setdefault(item.number, where)) != where:
                    self._add("duplicate annotation id", where, item.number, f"is that of {first} too", row=row)
        for place, image_id in self.split.orphans:
            hint = " (the same text is the id of one, as another type)" if str(image_id) in seen else ""
            self._add("orphan", f"{place}.image_id", image_id, f"no image has this id{hint}")

    def _image(self, row: int, image: RawImage, frame: _Frame, form: BoxFormat) -> ImageBoxes:
        found = [item for item in self._objects(row, image, frame, form) if item is not None]
        corners = np.array([item[0] for item in found], dtype=np.float64).reshape(-1, 4)
        crowd = np.array([item[2] for item in found], dtype=bool)
        width, height = frame.header.upright
        wanted = int((~crowd).sum())
        if self.num_queries is not None and wanted > self.num_queries:
            message = f"the model has {self.num_queries} queries and can find no more; give it {wanted} or more"
            self._add("too many boxes", f"{image.place}: number of boxes", wanted, message, row=row)
        return ImageBoxes(
            str(image.image_id), width, height, corners, np.array([item[1] for item in found], dtype=np.int64), crowd,
            np.array([item[3] for item in found], dtype=np.float64),
        )  # fmt: skip

    def _objects(
        self, row: int, image: RawImage, frame: _Frame, form: BoxFormat
    ) -> Iterator[tuple[np.ndarray, int, bool, float] | None]:
        seen: set[tuple[Any, ...]] = set()
        for item in image.objects:
            place = f"{image.place}: {item.place}"
            box = self._box(row, place, item, frame, form)
            number = self._class(row, place, item)
            crowd = self._crowd(row, place, item)
            if box is None or number is None or crowd is None:
                yield None
                continue
            self.usable_boxes += 1
            area = self._area(row, place, item, box, form)
            key = (number, *box.tolist())
            if key in seen:
                self._add("duplicate box", place, item.box, row=row, box=box)
            seen.add(key)
            yield box, number, crowd, area

    def _box(self, row: int, place: str, item: RawObject, frame: _Frame, form: BoxFormat) -> np.ndarray | None:
        """Corners (4,) of a box on the upright image, clipped to it; None where the box cannot be used."""
        if not _four_numbers(item.box):
            self._add("not a box", place, item.box, row=row)
            return None
        values = np.array([item.box], dtype=np.float64)
        if form.unit == "pixels" and 0 < np.abs(values).max() <= 1 < min(frame.size) / 4:
            self._add("wrong unit", place, item.box, f"no number is above 1, but boxes are in pixels ({form})", row=row)
            return None
        if form.unit == "relative" and np.abs(values).max() > 2:
            self._add("wrong unit", place, item.box, f"numbers are above 1, but boxes are relative ({form})", row=row)
            return None
        corners = form.corners(values, np.array([frame.size]))
        if frame.turned:
            corners = turn_boxes(corners, frame.header)
        return self._cut(row, place, item, corners[0], frame.header.upright)

    def _cut(
        self, row: int, place: str, item: RawObject, corners: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | None:
        width, height = size
        left, top, right, bottom = corners.tolist()
        if right <= left or bottom <= top:
            self._add("degenerate box", place, item.box, f"it is {right - left:g} x {bottom - top:g} pixels", row=row)
            return None
        inside: np.ndarray = corners.clip(0, [width, height, width, height])
        image = f"the image of {width} x {height} pixels"
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            self._add("box outside", place, item.box, f"it lies outside {image}", row=row, box=corners)
            return None
        beyond = float(np.abs(inside - corners).max())
        if beyond > ROUNDING + 0.005 * max(size):
            self._add("box partly outside", place, item.box, f"it reaches {beyond:g} pixels beyond {image}", row=row,
                      box=corners)  # fmt: skip
        elif beyond > 1e-6 * max(size):
            self._add("rounded box", place, item.box, row=row, box=corners)
        return inside

    def _class(self, row: int, place: str, item: RawObject) -> int | None:
        value = item.category
        number = self.numbers.get(value) if not isinstance(value, list | dict | bool) else None
        if number is not None:
            return number
        where = f"{place}, class"
        if isinstance(value, str | int) and (number := self.keys.get(str(value).strip())) is not None:
            self._add("text id", where, value, row=row)
            return number
        known = list(self.source.categories)
        names = ", ".join(str(key) for key in known[:12]) + (" ..." if len(known) > 12 else "")
        from_one = known == list(range(len(known))) and value == len(known)
        hint = f"; ids count from 0 to {len(known) - 1} here, and seem to count from 1 in the boxes" if from_one else ""
        self._add(
            "class ids from 1" if from_one else "class id", where, value, f"the classes are {names}{hint}", row=row
        )
        return None

    def _crowd(self, row: int, place: str, item: RawObject) -> bool | None:
        if item.crowd is None or item.crowd in (0, 1):
            return bool(item.crowd)
        self._add("crowd", f"{place}, iscrowd", item.crowd, row=row)
        return None

    def _area(self, row: int, place: str, item: RawObject, box: np.ndarray, form: BoxFormat) -> float:
        own = float((box[2] - box[0]) * (box[3] - box[1]))
        if item.area is None:
            self.without_area.append((place, row))
            return own
        if not _finite(item.area) or item.area <= 0:
            self._add(
                "area", f"{place}, area", item.area, f"it must be a positive number; the box has {own:g}", row=row
            )
            return own
        if form.unit == "relative":
            return own
        if item.area > 1.05 * own + 2:
            self._add("large area", f"{place}, area", item.area, f"the box has only {own:g}", row=row, box=box)
        return float(item.area)

    def _note_areas(self) -> None:
        """Logs missing areas: each one where others are given, once where none is, never where the format has none."""
        if self.source.kind in ("Pascal VOC", "YOLO"):
            return
        if len(self.without_area) == self.usable_boxes > 0:
            message = f"none of the {self.usable_boxes} boxes has an area; that of the box is taken"
            self._add("missing area", "area of every box", None, message)
            return
        for place, row in self.without_area:
            self._add("missing area", place, None, row=row)


def _compare_formats(result: Inspection) -> None:
    """Logs an error where splits have boxes in different formats, as one of them must be wrong."""
    known = {name: guess for name, guess in result.guesses.items() if guess.boxes}
    first = next(iter(known.items()), None)
    for name, guess in known.items():
        if first is not None and guess.format != first[1].format:
            result.faults.add(
                "box format", name, "boxes", str(guess),
                f"those of split {first[0]!r} are {first[1]}; if one format holds for all, state it with "
                f"{argument('box_format')}",
            )  # fmt: skip


def _check_classes(result: Inspection) -> None:
    """Logs classes without boxes, and classes that have the same name."""
    used: set[int] = set()
    named: dict[str, Any] = {}
    split = next(iter(result.images))
    for images in result.images.values():
        used |= {int(number) for image in images if image is not None for number in image.classes}
    for number, (key, name) in enumerate(result.source.categories.items()):
        if (other := named.setdefault(name, key)) != key:
            message = f"the class {other!r} has this name too: predictions could not be told apart; rename one"
            result.faults.add("duplicate class name", split, f"class {key!r}: name", name, message)
        if number not in used:
            result.faults.add("unused class", split, f"class {key!r}", name)


def _size(declared: tuple[Any, Any] | None) -> tuple[int, int] | None:
    if declared is None or not all(_finite(side) for side in declared):
        return None
    return int(declared[0]), int(declared[1])


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that is too large for a float
        return False


def _four_numbers(box: Any) -> bool:
    return isinstance(box, list | tuple) and len(box) == 4 and all(_finite(value) for value in box)


__all__ = ["Inspection", "Pixels", "inspect_boxes"]
