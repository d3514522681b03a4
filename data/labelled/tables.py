"""Loading of data sets of labelled images for training: three splits, numbered labels, encoded images."""

import logging
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from ..columns import IMAGE, LABEL
from ..sources import DataError, encoded_images, find_image_column, find_label_column, read_source
from ..splits import SplitTables, complete_splits, find_splits, without_unlabelled
from .labels import LabelSet, find_labels, label_counts, numbered, shown_names

logger = logging.getLogger("vithub")


@dataclass
class ImageData(SplitTables):
    """Data set of labelled images, in splits with the columns "image" (encoded) and "label" (a number, or a list).

    Args:
        name: Name of the source.
        labels: Class names.
        train: Training split, a table or a stream.
        validation: Validation split, on which the best epoch is chosen.
        test: Test split, which is evaluated once at the end; None where the source has none and none was drawn.
        notes: Remarks on the splits for readers of the results.
        drawn: Names of the splits that were drawn from the training split.
    """

    name: str
    labels: LabelSet
    train: Any
    validation: Dataset
    test: Dataset | None
    notes: list[str] = field(default_factory=list)
    drawn: frozenset[str] = frozenset()


@dataclass
class LabelledTables:
    """Splits of the source, with the columns "image" (encoded) and "label" (a number, or a list of them).

    Args:
        name: Name of the source.
        labels: Class names.
        tables: Table of each existing split: "train", "validation", "test".
        notes: Remarks for readers of the results, such as on files that were not read.
    """

    name: str
    labels: LabelSet
    tables: dict[str, Dataset]
    notes: list[str] = field(default_factory=list)


def read_labelled_tables(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    test_split: str | None = None,
    revision: str | None = None,
) -> LabelledTables:
    """Reads and checks a data set without drawing splits; arguments and errors are those of `load_image_data`."""
    raw = read_source(source, revision)
    first = next(iter(raw.tables.values()))
    image_column = find_image_column(first, image_column)
    label_column = find_label_column(first, label_column, image_column)
    named = {"train": train_split, "validation": validation_split, "test": test_split}
    found, notes = find_splits(raw.tables, named), list(raw.notes)
    if test_split is None:
        found, unlabelled = without_unlabelled(found, label_column)
        notes += unlabelled
    labels = find_labels(found, label_column)
    tables: dict[str, Dataset] = {}
    for role, table in found.items():
        encoded = encoded_images(numbered(table, label_column, labels, role), image_column, raw.folder)
        tables[role] = _columns(encoded, image_column, label_column)
    return LabelledTables(raw.name, labels, tables, notes)


def read_image_tables(
    source: Any, image_column: str | None = None, revision: str | None = None
) -> tuple[dict[str, Dataset], str]:
    """Splits of a data set by the source's names, with the column "image" alone, and the name of the source."""
    raw = read_source(source, revision)
    column = find_image_column(next(iter(raw.tables.values())), image_column)
    tables = {}
    for name, table in raw.tables.items():
        encoded = encoded_images(table, column, raw.folder).select_columns([column])
        tables[name] = encoded if column == IMAGE else encoded.rename_column(column, IMAGE)
    return tables, raw.name


def load_image_data(
    source: Any, *, validation_fraction: float = 0.1, test_fraction: float = 0.1, split_seed: int = 0, **columns: Any
) -> ImageData:
    """Reads, checks and splits a data set.

    Args:
        source: Data set: "digits", a folder, a table file, a Hub id, or a `Dataset` or `DatasetDict`; see
            `read_source`.
        validation_fraction: Fraction of each class of the training split that is drawn for validation where there is
            no validation split, in (0, 1).
        test_fraction: Fraction of each class of the training split that is drawn for the test where there is neither
            a validation nor a test split, in [0, 1).
        split_seed: Seed of the draw; it does not depend on the seed of the training.
        **columns: Names `image_column`, `label_column`, `train_split`, `validation_split` and `test_split`, each
            found where it is not given; and `revision` of a Hub id.

    Raises:
        DataError: The data set cannot be used; the message names the file, row or column and the fault.
    """
    read = read_labelled_tables(source, **columns)
    labels, fractions = read.labels, (validation_fraction, test_fraction)
    tables, about_draw = complete_splits(read.tables, lambda table: _strata(table, labels), fractions, split_seed)
    notes = [*read.notes, *about_draw]
    drawn = frozenset(tables.keys() - read.tables.keys())
    data = ImageData(read.name, labels, tables["train"], tables["validation"], tables.get("test"), notes, drawn)
    _check_classes(data)
    if unmeasured := _unmeasured(data):
        logger.warning("%s", unmeasured)
        notes.append(unmeasured)
    return data


def _columns(table: Dataset, image_column: str, label_column: str) -> Dataset:
    table = table.select_columns([image_column, label_column])
    renamed = {image_column: IMAGE, label_column: LABEL}
    return table.rename_columns({old: new for old, new in renamed.items() if old != new})


def _strata(table: Dataset, labels: LabelSet) -> list[int]:
    """Stratum of each row: the number of its class, or of its set of labels."""
    column = table[LABEL]
    classes = [tuple(row) for row in column] if labels.multi_label else list(column)
    keys = {key: number for number, key in enumerate(sorted(set(classes)))}
    return [keys[key] for key in classes]


def _check_classes(data: ImageData) -> None:
    counts = label_counts(data.train, LABEL, data.labels)
    if empty := [name for name, count in zip(data.labels.names, counts, strict=True) if count == 0]:
        shown = ", ".join(empty[:12])
        what, it = ("class", "it") if len(empty) == 1 else ("classes", "them")
        raise DataError(
            f"no training image has the {what} {shown}, which {data.name} names: add training images of {it}, or "
            f"remove {it} from the labels and from the other splits"
        )


def _unmeasured(data: ImageData) -> str | None:
    """Note about the classes that have no image in a split for evaluation, and so no part in its figures."""
    train = label_counts(data.train, LABEL, data.labels)
    for split in ("test", "validation"):
        if split not in data.splits:
            continue
        counts = label_counts(data.splits[split], LABEL, data.labels)
        classes = zip(data.labels.names, train, counts, strict=True)
        lacking = [f"{name} (trained on {trained})" for name, trained, count in classes if not count]
        if lacking:
            more = "give each 3 images or more" if split in data.drawn else "add images of each to it"
            return (
                f"the {split} split has no image of {shown_names(lacking)}, so that its figures do not tell whether "
                f"such images are recognised; {more}"
            )
    return None


__all__ = [
    "ImageData",
    "LabelledTables",
    "load_image_data",
    "read_image_tables",
    "read_labelled_tables",
]
