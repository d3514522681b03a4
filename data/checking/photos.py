"""Labelled photos of a data set, one after the other, without rejecting any: for checks that report every fault."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datasets import ClassLabel, Dataset, Image, IterableDataset, List

from ..image_files import ignored_notes, images_below
from ..images import shown_path, stored_path
from ..sources import (
    DataError,
    RawSplits,
    class_folders,
    encoded_images,
    find_image_column,
    find_label_column,
    read_source,
)
from ..splits import split_role, without_unlabelled
from ..streaming.tables import open_streams

AT_ONCE = 64  # rows that are held in memory at a time


class Photo(NamedTuple):
    """One row of a split.

    Args:
        image: Encoded image, {"bytes", "path"}.
        label: Label as the source stores it; for class folders the name of the folder.
    """

    image: Any
    label: Any


@dataclass
class PhotoSplit:
    """Split of a data set.

    Args:
        read: Function that reads all rows in order.
        size: Number of rows; None for a stream, whose length is not known.
        at: Function that reads one row by its number; None for a stream.
        root: Folder that paths are shown relative to; None shows them whole.
    """

    read: Callable[[], Iterator[Photo]]
    size: int | None = None
    at: Callable[[int], Photo] | None = None
    root: Path | None = None

    def place(self, row: int, image: Any = None) -> str:
        """Row of an image, and its file where there is one, as messages name them.

        Args:
            row: Number of the row, from 0.
            image: Encoded image of the row; None reads it where that is possible.
        """
        if image is None and self.at is not None:
            image = self.at(row).image
        path = image.get("path") if isinstance(image, dict) else None
        if not path:
            return f"row {row}"
        shown = shown_path(path)
        if self.root is not None:
            return shown.removeprefix(f"{shown_path(self.root)}{os.sep}")
        return f"row {row} ({shown})"

    def images(self, rows: Sequence[int]) -> dict[int, Any]:
        """Encoded images of some rows; a stream is read again as far as the last of them."""
        if self.at is not None:
            return {row: self.at(row).image for row in rows}
        wanted = set(rows)
        until = max(wanted, default=-1) + 1
        return {row: photo.image for row, photo in enumerate(islice(self.read(), until)) if row in wanted}


@dataclass
class Photos:
    """Data set of labelled photos as it was found.

    Args:
        name: Name of the source.
        kind: "class folders", "table" or "stream".
        splits: Splits by the source's names.
        classes: Class names that the source states, in the order of their numbers; None takes those of the rows.
        multi_label: Whether a row may have any number of labels.
        notes: Remarks for readers of the results, such as on files that were not read.
    """

    name: str
    kind: str
    splits: dict[str, PhotoSplit]
    classes: tuple[str, ...] | None
    multi_label: bool = False
    notes: list[str] = field(default_factory=list)

    def labels(self, value: Any) -> tuple[str, ...] | None:
        """Names of a row's labels; None where it has none, although the data set has one label per image.

        Raises:
            ValueError: The label is not among the classes.
        """
        values = value if self.multi_label else [value]
        if values is None:
            return None
        names = []
        for item in values:
            if item is None or (isinstance(item, str) and not item.strip()):
                return None
            names.append(self._name(item))
        return tuple(names)

    def _name(self, item: Any) -> str:
        if self.classes is None or (isinstance(item, str) and item in self.classes):
            return str(item)
        if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(self.classes):
            return self.classes[item]
        raise ValueError(f"the labels are {len(self.classes)} classes, numbered 0 to {len(self.classes) - 1}")


def read_photos(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
    revision: str | None = None,
) -> Photos:
    """Opens a data set of labelled photos; nothing is decoded, and no label is rejected.

    Args:
        source: Data set, as `read_source` takes it; with `streaming`, as `load_streamed_data` does.
        image_column: Name of the image column; None finds it.
        label_column: Name of the label column; None finds it.
        streaming: Whether to read the data as streams and never all of it.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.

    Raises:
        DataError: There is no such source, or it has no images or no labels.
    """
    found = _opened(source, image_column, label_column, streaming, revision)
    roles = {name: split_role(name, whole=True) for name in found.splits}
    order = {"train": 0, None: 1, "validation": 2, "test": 3}
    found.splits = dict(sorted(found.splits.items(), key=lambda item: order[roles[item[0]]]))
    return found


def _opened(
    source: Any, image_column: str | None, label_column: str | None, streaming: bool, revision: str | None
) -> Photos:
    if streaming or isinstance(source, IterableDataset):
        streams, name = open_streams(source, revision)
        return _of_tables(RawSplits(streams, name), "stream", image_column, label_column)
    in_memory = isinstance(source, Dataset | Mapping) or source == "digits"
    path = None if in_memory else Path(source).expanduser()
    if path is not None and path.is_dir() and not any(path.rglob("*.parquet")):
        return _of_folders(path)
    return _of_tables(read_source(source, revision), "table", image_column, label_column)


def _of_folders(folder: Path) -> Photos:
    places, classes = class_folders(folder)
    name = shown_path(folder.name)
    splits = {}
    ignored: Counter[str] = Counter()
    stray = images_below(folder, deep=False).files
    for split, place in places.items():
        files: list[Path] = []
        numbers: list[int] = []
        for number, label in enumerate(classes):
            found = images_below(place / label) if (place / label).is_dir() else None
            if found is not None:
                ignored += found.ignored
                files += found.files
                numbers += [number] * len(found.files)
        if place != folder:
            stray += images_below(place, deep=False).files
        splits[split] = _file_split(files, numbers, classes, folder)
    return Photos(name, "class folders", splits, tuple(classes), False, ignored_notes(name, ignored, stray))


def _file_split(files: list[Path], numbers: list[int], classes: list[str], folder: Path) -> PhotoSplit:
    def at(row: int) -> Photo:
        return Photo({"bytes": None, "path": stored_path(files[row])}, classes[numbers[row]])

    return PhotoSplit(lambda: map(at, range(len(files))), len(files), at, folder)


def _of_tables(raw: RawSplits, kind: str, image_column: str | None, label_column: str | None) -> Photos:
    first = next(iter(raw.tables.values()))
    if first.features is None:
        raise DataError(f"the columns of {raw.name} are not known before it is read; name a data set with a schema")
    image = find_image_column(first, image_column)
    label = find_label_column(first, label_column, image)
    feature = first.features[label]
    inner = feature.feature if isinstance(feature, List) else feature
    splits: dict[str, PhotoSplit] = {}
    tables, notes = raw.tables, list(raw.notes)
    if not isinstance(first, IterableDataset):
        tables, unlabelled = without_unlabelled(tables, label)
        notes += unlabelled
    for name, table in tables.items():
        for column in (image, label):
            if column not in (table.features or {}):
                raise DataError(f"split {name!r} of {raw.name} has no column {column!r}, which the others have")
        splits[name] = _table_split(table, image, label, raw.folder)
    classes = tuple(inner.names) if isinstance(inner, ClassLabel) else None
    return Photos(raw.name, kind, splits, classes, isinstance(feature, List), notes)


def _table_split(table: Any, image: str, label: str, folder: Path | None) -> PhotoSplit:
    if isinstance(table, IterableDataset):
        stream = table.cast_column(image, Image(decode=False))

        def read_stream() -> Iterator[Photo]:
            return (Photo(row[image], row[label]) for row in stream)

        return PhotoSplit(read_stream)
    encoded = encoded_images(table.select_columns([image, label]), image, folder)

    def read() -> Iterator[Photo]:
        for start in range(0, len(encoded), AT_ONCE):
            part = encoded[start : start + AT_ONCE]
            yield from map(Photo, part[image], part[label])

    def at(row: int) -> Photo:
        found = encoded[row]
        return Photo(found[image], found[label])

    return PhotoSplit(read, len(encoded), at)


__all__ = ["AT_ONCE", "Photo", "PhotoSplit", "Photos", "read_photos"]
