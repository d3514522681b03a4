"""Loading of data sets of boxes for training and evaluation: checked, numbered and split."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..images import stored_path
from ..sources import DataError
from ..splits import complete_splits, find_splits
from .checks import Inspection, Pixels, inspect_boxes
from .formats import BoxFormat
from .sources import read_box_source
from .tables import BOX_FEATURES, BOX_TABLE, BoxClasses, BoxData, ImageBoxes

BAD_IMAGE = "bad image"  # kind of fault of missing and unreadable images


class MissingImagesError(DataError):
    """A data set of boxes lacks an image, or has one that cannot be read, and none may be left out."""


def load_box_data(
    source: Any,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    bad_share: float = 0.0,
    num_queries: int | None = None,
    repair: bool = False,
    box_format: str | None = None,
    boxes_on: Pixels | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    test_split: str | None = None,
    **columns: Any,
) -> BoxData:
    """Reads, checks and splits a data set of boxes.

    Args:
        source: Data set with boxes: files of COCO, Pascal VOC or YOLO, or a table with a column of objects; see
            `read_box_source`.
        validation_fraction: Fraction of the training split that is drawn for validation where there is no validation
            split, in (0, 1), stratified by each image's rarest class.
        test_fraction: Fraction of the training split that is drawn for the test where there is neither a validation
            nor a test split, in [0, 1), stratified by each image's rarest class.
        split_seed: Seed of the draw.
        bad_share: Largest fraction of the images that may be missing or unreadable, in [0, 1]; they are left out, and
            a note names them. More of them are an error.
        num_queries: Number of queries of the model; an image with more boxes is an error. None skips the check.
        repair: Whether to clip boxes that reach beyond their image, and to leave out those without a width or height
            or outside of it; the notes state how many. Otherwise they are errors.
        box_format: Format of the boxes, such as "xyxy pixels"; None takes the usual one of the kind of data set, or
            the one that fits.
        boxes_on: Pixels that boxes refer to where EXIF turns an image, "upright" or "stored"; see `inspect_boxes`.
        train_split: Source's name of the training split; None finds it.
        validation_split: Source's name of the validation split; None finds it.
        test_split: Source's name of the test split; None finds it.
        **columns: `objects_column`, `image_column` and `revision` of `read_box_source`.

    Raises:
        DataError: The data set cannot be used; the message names the file, row, field, value and fault.
    """
    raw = read_box_source(source, **columns)
    form = None if box_format is None else BoxFormat.parse(box_format)
    checked = inspect_boxes(raw, box_format=form, boxes_on=boxes_on, num_queries=num_queries)
    guard(checked, repair, bad_share)
    named = {"train": train_split, "validation": validation_split, "test": test_split}
    fractions = (validation_fraction, test_fraction)
    try:
        own = find_splits({name: box_table(checked, name) for name in raw.splits}, named)
        tables, about_draw = complete_splits(own, lambda table: _rarest(table["classes"]), fractions, split_seed)
    except DataError as error:
        raise DataError(f"{raw.name}: {error}") from error
    notes = [*raw.notes, *_notes(checked, repair), *about_draw]
    if not any(tables["train"]["boxes"]):
        raise DataError(
            f"no training image of {raw.name} has a box, from which a detector learns: {len(tables['train'])} have "
            "none; `vithub check-data` shows what was found"
        )
    kind = "a column of objects" if raw.kind == "objects" else raw.kind
    return BoxData(
        raw.name, box_classes(checked), tables["train"], tables["validation"], tables.get("test"), notes,
        reading=f"{kind}, a box as {_formats(checked)}", drawn=frozenset(tables.keys() - own.keys()),
    )  # fmt: skip


def guard(checked: Inspection, repair: bool = False, bad_share: float = 0.0) -> None:
    """Checks that a data set may be trained on.

    Args:
        checked: Result of `inspect_boxes`.
        repair: Whether repairable faults are allowed.
        bad_share: Largest fraction of the images that may be missing or unreadable, in [0, 1].

    Raises:
        DataError: There are faults; the message names the first with its file, row, field and value, and counts the
            others.
    """
    severities = ("error",) if repair else ("error", "repairable")
    faults, count = checked.faults.of(*severities), checked.faults.total(*severities)
    bad = checked.faults.counts[BAD_IMAGE]
    if bad <= bad_share * sum(len(images) for images in checked.images.values()):
        faults, count = [fault for fault in faults if fault.kind != BAD_IMAGE], count - bad
    if not faults:
        return
    first = faults[0]
    kinds = Counter({kind: n for kind, n in checked.faults.counts.items() if any(f.kind == kind for f in faults)})
    others = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common())
    more = f" ({count} faults: {others}; `vithub check-data` shows them)" if count > 1 else ""
    hint = "" if repair or first.severity == "error" else "; data.repair_boxes cuts such boxes or leaves them out"
    kind = MissingImagesError if first.kind == BAD_IMAGE and not bad_share else DataError
    raise kind(f"{checked.source.name}: {first}{hint}{more}")


def box_classes(checked: Inspection) -> BoxClasses:
    """Classes of a checked data set."""
    categories = checked.source.categories
    ids = [image.image_id for split in checked.source.splits.values() for image in split.images]
    whole = all(isinstance(value, int) for value in ids)
    return BoxClasses(tuple(categories.values()), tuple(categories), whole)


def box_table(checked: Inspection, split: str) -> Dataset:
    """Table of a split with the columns of `BOX_TABLE`, without the images that cannot be used."""
    raw, images = checked.source.splits[split], checked.images[split]
    rows = [row for row, image in enumerate(images) if image is not None]
    values = [image.to_row() for image in images if image is not None]
    columns = {name: [value[name] for value in values] for name in BOX_FEATURES}
    if raw.table is None:
        files = [stored_path(file) for row in rows if (file := raw.images[row].file) is not None]
        return Dataset.from_dict({"image": files, **columns}, features=BOX_TABLE)
    table = raw.table if len(rows) == len(images) else raw.table.select(rows)
    for name, feature in BOX_FEATURES.items():
        table = table.add_column(name, columns[name], feature=feature)
    return table


def _formats(checked: Inspection) -> str:
    """Description of the formats of all splits with boxes, which differ only where boxes fit several formats."""
    return " or ".join(dict.fromkeys(guess.format.words for guess in checked.guesses.values() if guess.boxes))


def _notes(checked: Inspection, repair: bool) -> list[str]:
    counts = checked.faults.counts
    notes = _left_out(checked)
    notes += [f"boxes of split {name!r} were read as {guess}" for name, guess in checked.guesses.items()
             if guess.format != checked.source.usual or guess.rivals]  # fmt: skip
    if repair and (dropped := counts["degenerate box"] + counts["box outside"]):
        notes.append(f"{dropped} boxes without a width, or outside of their image, were left out")
    if repair and counts["box partly outside"]:
        notes.append(f"{counts['box partly outside']} boxes were cut at the border of their image")
    if counts["turned boxes"]:
        notes.append(f"the boxes of {counts['turned boxes']} images were turned upright with them")
    if counts["text id"]:
        notes.append(f"{counts['text id']} class ids that were written as text were taken for numbers")
    return notes


def _left_out(checked: Inspection) -> list[str]:
    """Note on the images that cannot be read and were left out; empty where there are none."""
    count = checked.faults.counts[BAD_IMAGE]
    if not count:
        return []
    places = [str(fault.value) for fault in checked.faults.found if fault.kind == BAD_IMAGE]
    shown = ", ".join(Path(place).name for place in places[:5]) + (" and others" if count > 5 else "")
    return [f"{count} image{' is' if count == 1 else 's are'} missing or unreadable and left out: {shown}"]


def _rarest(classes: Any) -> list[int]:
    """Class of each image that has the fewest boxes in the data set; -1 for images without boxes."""
    rows = [np.asarray(row, dtype=np.int64) for row in classes]
    counts = Counter(int(number) for row in rows for number in row)
    return [min(map(int, row), key=lambda number: (counts[number], number)) if len(row) else -1 for row in rows]


def image_boxes(table: Dataset) -> list[ImageBoxes]:
    """Boxes of all images of a table, read without decoding an image."""
    return [ImageBoxes.from_row(row) for row in table.remove_columns("image")]


__all__ = ["MissingImagesError", "box_classes", "box_table", "guard", "image_boxes", "load_box_data"]
