"""Inspection of labelled photos: one pass over all images, then what only all of them together can show."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from ..images import pillow_warnings
from .comparisons import check_classes, check_duplicates, check_sizes
from .content import PhotoInspection, SplitContent
from .measuring import Measured, measure, wrong_extension
from .photos import AT_ONCE, Photo, Photos

ASPECT = 4.0  # of the longer side to the shorter
_MORE_THAN_8 = ("I", "F", "1")  # modes of other depths, and beginnings of their names


class Progress:
    """Receiver of the progress that shows nothing."""

    def start(self, task: str, total: int | None, done: int = 0) -> None:
        """Begins a task of `total` images; None where their number is not known."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Counts images as done."""

    def stop(self) -> None:
        """Ends the task."""


def inspect_photos(
    source: Photos,
    *,
    decode: bool = True,
    prepare: Callable[[Image.Image], Any] | None = None,
    embed: Callable[[list[Any]], np.ndarray] | None = None,
    progress: Any = None,
) -> PhotoInspection:
    """Inspects every image and label of a data set.

    Memory holds 64 images at a time, and some 50 bytes of each image; with a model also its embedding in float16.

    Args:
        source: Data set, as `read_photos` opens it.
        decode: Whether to decode every image, which finds damaged, blank and similar ones; otherwise only headers and
            bytes are read.
        prepare: Function from a decoded image to the input of a model.
        embed: Function from such inputs to their embeddings, float (B, D).
        progress: Receiver of the progress, a `Reporter`; None shows none.
    """
    result = PhotoInspection(source)
    progress = progress or Progress()
    vectors: list[np.ndarray] = []
    label_numbers: dict[tuple[str, ...], int] = {}
    sizes = [split.size for split in source.splits.values()]
    progress.start(f"checking {source.name}", None if None in sizes else sum(size or 0 for size in sizes))
    with pillow_warnings(), ThreadPoolExecutor(_threads()) as pool:
        for name, split in source.splits.items():
            result.content[name] = SplitContent()
            done = 0
            for photos in _chunks(split.read()):
                measured = list(pool.map(lambda one: measure(one.image, decode=decode, prepare=prepare), photos))
                good = [one.prepared for one in measured if one.error is None]
                if embed is not None and good:
                    vectors.append(embed(good).astype(np.float16))
                for row, (photo, one) in enumerate(zip(photos, measured, strict=True), start=done):
                    _record(result, name, row, photo, one, label_numbers)
                done += len(photos)
                progress.advance(len(photos))
    progress.stop()
    if embed is not None:
        result.embeddings = np.concatenate(vectors) if vectors else np.empty((0, 1), np.float16)
    check_sizes(result)
    check_classes(result)
    check_duplicates(result)
    return result


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(photos: Iterable[Photo]) -> Iterator[list[Photo]]:
    rows = iter(photos)
    while chunk := list(islice(rows, AT_ONCE)):
        yield chunk


def _record(
    result: PhotoInspection,
    split: str,
    row: int,
    photo: Photo,
    found: Measured,
    label_numbers: dict[tuple[str, ...], int],
) -> None:
    """Adds an image to the content of its split, and its own faults to the log."""
    content, table = result.content[split], result.rows
    content.images += 1

    def add(kind: str, value: Any, message: str | None = None) -> None:
        kept = result.faults.counts[kind] < result.faults.examples
        place = result.source.splits[split].place(row, photo.image or {}) if kept else ""
        result.faults.add(kind, split, place, value, message, row=row)

    label = _label_number(result, photo.label, label_numbers, content, add)
    if found.error is not None:
        content.unreadable += 1
        short = "truncated" in found.error or "unexpected end" in found.error.lower()
        add("truncated image" if short else "bad image", _shown_label(photo.label), found.error)
        return
    content.modes[found.mode] += 1
    content.formats[found.format] += 1
    table.split.append(result.split_names.index(split))
    table.row.append(row)
    table.label.append(label)
    table.width.append(found.size[0])
    table.height.append(found.size[1])
    table.digests.extend(found.digest or (0, 0))
    table.phash.append(found.phash or 0)
    table.hashed.append(found.phash is not None)
    _header_faults(found, add)


def _header_faults(found: Measured, add: Callable[..., None]) -> None:
    width, height = found.size
    if wrong_extension(found):
        add("wrong extension", found.format, f"its extension is that of {found.named_format}")
    if found.turned:
        add("exif rotation", f"{width} x {height}")
    if found.transparent:
        add("transparency", found.mode)
    elif found.mode.startswith(_MORE_THAN_8):
        add("depth", found.mode)
    elif found.mode != "RGB":
        add("colour mode", found.mode)
    if found.frames:
        add("animation", found.format)
    if found.blank:
        add("blank image", f"{width} x {height}")
    if max(width, height) > ASPECT * min(width, height):
        add("aspect ratio", f"{width} x {height}")


def _label_number(
    result: PhotoInspection,
    value: Any,
    numbers: dict[tuple[str, ...], int],
    content: SplitContent,
    add: Callable[..., None],
) -> int:
    """Number of a row's set of labels, which is counted; -1 where it is missing or unknown, which is a fault."""
    try:
        labels = result.source.labels(value)
    except ValueError as error:
        add("unknown label", _shown_label(value), str(error))
        return -1
    if labels is None:
        add("missing label", _shown_label(value))
        return -1
    content.classes.update(labels)
    known = tuple(sorted(labels))
    if known not in numbers:
        numbers[known] = len(result.label_sets)
        result.label_sets.append(known)
    return numbers[known]


def _shown_label(value: Any) -> Any:
    return value if isinstance(value, str | int | None) else str(value)


__all__ = ["Progress", "inspect_photos"]
