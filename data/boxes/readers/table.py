"""Reader of boxes in a table of `datasets` with a column of objects: lists of boxes, classes and more per image."""

from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel, Dataset, List

from ...sources import DataError, NoBoxesError, RawSplits, encoded_images, find_image_column
from ..formats import BoxFormat
from ..rows import RawBoxes, RawBoxSplit, RawImage, RawObject

BOXES = ("bbox", "bboxes", "boxes", "box")
CLASSES = ("category", "categories", "label", "labels", "class", "classes", "category_id", "class_label", "name")
CROWD = ("iscrowd", "is_crowd", "crowd")
COLUMNS = ("objects", "annotations", "object", "faces", "labels")


def find_objects(table: Dataset, named: str | None = None) -> tuple[str, dict[str, Any]] | None:
    """Finds the column of objects and the types of its fields; None where there is none.

    Raises:
        DataError: The column `named` holds no boxes.
    """
    usual = [name for name in COLUMNS if name in table.column_names]
    for column in [named] if named else [*usual, *(name for name in table.column_names if name not in usual)]:
        fields = _fields(table.features.get(column))
        if fields and _first(BOXES, fields):
            return column, fields
    if named:
        raise DataError(f"column {named!r} holds no boxes; the columns are: {', '.join(table.column_names)}")
    return None


def read_table(source: RawSplits, objects_column: str | None = None, image_column: str | None = None) -> RawBoxes:
    """Reads the boxes of tables.

    Raises:
        DataError: A column or field is missing.
    """
    splits: dict[str, RawBoxSplit] = {}
    values: set[Any] = set()
    feature: Any = None
    for name, table in source.tables.items():
        found = find_objects(table, objects_column)
        if found is None:
            raise NoBoxesError(
                f"split {name!r} of {source.name} has no column of objects with boxes ({', '.join(BOXES)}) among its "
                f"columns: {', '.join(table.column_names)}"
            )
        column, fields = found
        class_field = _first(CLASSES, fields)
        if class_field is None:
            raise DataError(f"column {column!r} has no field of classes among: {', '.join(fields)}")
        feature = fields[class_field]
        image = find_image_column(table, image_column)
        images = _images(table.remove_columns(image), name, column, fields, class_field)
        values |= {item.category for row in images for item in row.objects if item.category is not None}
        encoded = encoded_images(table.select_columns([image]), image, source.folder)
        splits[name] = RawBoxSplit(images, encoded if image == "image" else encoded.rename_column(image, "image"))
    if isinstance(feature, ClassLabel):
        categories: dict[Any, str] = dict(enumerate(feature.names))
        notes = []
    else:
        categories = {value: str(value) for value in sorted(values, key=lambda value: (str(type(value)), value))}
        shown = ", ".join(map(str, list(categories)[:12]))
        notes = [f"the data set does not name its classes; they are called as they occur: {shown}"]
        if any(isinstance(value, str) for value in categories):
            notes = []
    return RawBoxes(source.name, "objects", splits, categories, BoxFormat("xywh", "pixels"), notes)


def _fields(feature: Any) -> dict[str, Any]:
    """Types of the fields of a column that holds a dictionary of lists, or a list of dictionaries."""
    if isinstance(feature, List):
        return dict(feature.feature) if isinstance(feature.feature, Mapping) else {}
    if isinstance(feature, Mapping):
        return {name: kind.feature for name, kind in feature.items() if isinstance(kind, List)}
    return {}


def _first(names: tuple[str, ...], fields: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in fields), None)


def _images(table: Dataset, split: str, column: str, fields: dict[str, Any], class_field: str) -> list[RawImage]:
    box_field = str(_first(BOXES, fields))
    crowd = _first(CROWD, fields)
    named = {"box": box_field, "category": class_field, "crowd": crowd or "", "area": "area", "number": "id"}
    wanted = {ours: theirs for ours, theirs in named.items() if theirs in fields}
    images = []
    for row, entry in enumerate(table):
        place, objects = f"row {row}", entry[column]
        count, lists = _lists(objects, wanted, f"{place} of split {split!r}: {column}")
        items = [
            RawObject(place=f"{column}.{box_field}[{n}]", **{name: values[n] for name, values in lists.items()})
            for n in range(count)
        ]
        declared = (entry["width"], entry["height"]) if {"width", "height"} <= entry.keys() else None
        if declared is not None and None in declared:
            declared = None
        images.append(RawImage(place, entry.get("image_id", entry.get("id", row)), items, declared))
    return images


def _lists(objects: Any, wanted: dict[str, str], place: str) -> tuple[int, dict[str, list[Any]]]:
    """Number of objects, and the values of each field."""
    if objects is None:
        return 0, {}
    if isinstance(objects, list):
        return len(objects), {ours: [item[theirs] for item in objects] for ours, theirs in wanted.items()}
    lists = {ours: objects[theirs] for ours, theirs in wanted.items() if objects[theirs] is not None}
    lengths = {wanted[ours]: len(values) for ours, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{place} has lists of unequal lengths: {lengths}")
    return next(iter(lengths.values()), 0), lists


__all__ = ["find_objects", "read_table"]
