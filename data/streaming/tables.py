"""Loading of data sets as streams: the training split is never stored, the others are read from their beginnings."""

import tarfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, List, Value, load_dataset
from datasets.exceptions import DatasetsError

from ..columns import IMAGE, LABEL
from ..labelled.labels import LabelSet
from ..labelled.tables import ImageData
from ..sources import DataError, find_image_column, find_label_column, read_local
from ..splits import find_splits


def load_streamed_data(
    source: Any,
    *,
    held_out_images: int = 5000,
    labels: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    **splits: str | None,
) -> ImageData:
    """Loads a data set whose training split is an `IterableDataset` of encoded images and class numbers.

    Args:
        source: Data set: a folder of Parquet files, or of WebDataset `.tar` files, such a file, a Hub id, or an
            `IterableDataset` or a dictionary of them.
        held_out_images: Largest number of images of the validation split, and of the test split. Where there is no
            validation split, the first images of the training split are used, which are then not trained on.
        labels: Class names, in the order of their numbers; None takes them from the column's type.
        image_column: Name of the image column; None finds it.
        label_column: Name of the label column; None finds it.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.
        **splits: Names of the splits `train_split`, `validation_split` and `test_split`, each found where it is not
            given.

    Raises:
        DataError: There is no such source, or its columns or labels are not known.
    """
    tables, name = open_streams(source, revision)
    first = next(iter(tables.values()))
    if first.features is None:
        raise DataError(f"the columns of {name} are not known before it is read; name a data set with a schema")
    image_column = find_image_column(first, image_column)
    label_column = find_label_column(first, label_column, image_column)
    found = find_splits(tables, {role: splits.get(f"{role}_split") for role in ("train", "validation", "test")})
    label_set = _labels(first.features[label_column], labels, label_column)
    streams = {role: _prepared(table, image_column, label_column, label_set) for role, table in found.items()}
    train, notes = streams["train"], ["the training images were read as a stream"]
    features = Features({IMAGE: Image(decode=False), LABEL: _label_type(label_set)})
    if "validation" in streams:
        validation = _held_out(streams["validation"], held_out_images, features, name)
    else:
        validation = _held_out(train, held_out_images, features, name)
        train = train.skip(len(validation))
        notes.append(f"the first {len(validation)} training images were held out for validation")
    test = _held_out(streams["test"], held_out_images, features, name) if "test" in streams else None
    if test is None:
        notes.append("there is no test split: the figures are of the validation split, which also chose the best epoch")
    return ImageData(name, label_set, train, validation, test, notes)


def load_streamed_images(
    source: Any,
    *,
    held_out_images: int,
    image_column: str | None,
    revision: str | None,
    named: Mapping[str, str | None],
) -> tuple[dict[str, Any], str, list[str]]:
    """Loads a data set without its labels, whose training split is an `IterableDataset` of encoded images.

    Args:
        source: Data set, as for `load_streamed_data`.
        held_out_images: Largest number of images of the validation split, and of the test split, as for
            `load_streamed_data`.
        image_column: Name of the image column; None finds it.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.
        named: Name of the split for "train", "validation" and "test"; None finds it.

    Returns:
        Tables of "train", "validation" and, where there is one, "test"; the name of the source; notes for readers.

    Raises:
        DataError: There is no such source, or its columns are not known.
    """
    tables, name = open_streams(source, revision)
    first = next(iter(tables.values()))
    if first.features is None:
        raise DataError(f"the columns of {name} are not known before it is read; name a data set with a schema")
    column = find_image_column(first, image_column)
    streams = {role: _images_alone(table, column) for role, table in find_splits(tables, named).items()}
    features, notes = Features({IMAGE: Image(decode=False)}), ["the training images were read as a stream"]
    splits: dict[str, Any] = {"train": streams["train"]}
    splits["validation"] = _held_out(streams.get("validation", streams["train"]), held_out_images, features, name)
    if "validation" not in streams:
        count = len(splits["validation"])
        splits["train"] = splits["train"].skip(count)
        notes.append(f"the first {count} training images were held out for validation")
    if "test" in streams:
        splits["test"] = _held_out(streams["test"], held_out_images, features, name)
    return splits, name, notes


def open_streams(source: Any, revision: str | None = None) -> tuple[dict[str, IterableDataset], str]:
    """Opens a data set as streams, by the source's split names, and names it; see `load_streamed_data`.

    Raises:
        DataError: There is no such source, or it cannot be streamed.
    """
    if isinstance(source, IterableDataset):
        return {"train": source}, "a stream in memory"
    if isinstance(source, dict):
        return dict(source), "streams in memory"
    path = Path(source).expanduser()
    if path.is_dir():
        if sorted(path.rglob("*.parquet")):
            return dict(read_local(path, str(path), streaming=True)), path.name
        files = sorted(path.rglob("*.tar"))
        if not files:
            raise DataError(f"{path} holds neither Parquet files nor .tar files of a WebDataset to stream")
        return dict(read_local(path, "webdataset", data_files=_by_split(files), streaming=True)), path.name
    if path.is_file():
        kinds = {".parquet": "parquet", ".tar": "webdataset"}
        if path.suffix not in kinds:
            raise DataError(f"{path} must be a .parquet or .tar file to be streamed, got {path.suffix!r}")
        return dict(read_local(path, kinds[path.suffix], data_files={"train": str(path)}, streaming=True)), path.name
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise DataError(f"no data set to stream at {source}: give a folder, a file or a Hub id (user/name)")
    return dict(load_dataset(str(source), revision=revision, streaming=True)), str(source)


def _by_split(files: list[Path]) -> dict[str, list[str]]:
    """Groups files by the split that their names begin with, such as `train-0001.tar`; "train" for other names."""
    found: dict[str, list[str]] = {}
    for file in files:
        head = file.stem.split("-")[0].split("_")[0].lower()
        found.setdefault(head if head in ("train", "val", "validation", "test") else "train", []).append(str(file))
    return found


def _labels(feature: Any, names: Sequence[str] | None, column: str) -> LabelSet:
    multi_label = isinstance(feature, List)
    inner = feature.feature if isinstance(feature, List) else feature
    if names is None:
        if not isinstance(inner, ClassLabel):
            raise DataError(
                f"the names of column {column!r} ({feature}) are not known before a stream is read; give data.labels"
            )
        names = inner.names
    return LabelSet(tuple(names), multi_label)


def _label_type(labels: LabelSet) -> Any:
    return List(Value("int64")) if labels.multi_label else Value("int64")


def _prepared(table: IterableDataset, image_column: str, label_column: str, labels: LabelSet) -> IterableDataset:
    """Stream with the columns "image" (encoded) and "label" (a number, or a list of them) alone."""
    to_number = {name: number for number, name in enumerate(labels.names)}

    def number(value: Any) -> int:
        known = to_number.get(str(value), value if isinstance(value, int) else None)
        if known is None or not 0 <= known < len(to_number):
            raise DataError(f"a row has the {label_column} {value!r}; the labels are {', '.join(labels.names[:12])}")
        return int(known)

    def numbered(row: dict[str, Any]) -> dict[str, Any]:
        value = row[label_column]
        return {IMAGE: row[image_column], LABEL: [number(v) for v in value] if labels.multi_label else number(value)}

    others = [name for name in table.column_names or [] if name not in (IMAGE, LABEL)]
    encoded = table.cast_column(image_column, Image(decode=False))
    return encoded.map(numbered, remove_columns=others)


def _images_alone(table: IterableDataset, column: str) -> IterableDataset:
    """Stream with the column "image" (encoded) alone."""
    others = [name for name in table.column_names or [] if name != IMAGE]
    encoded = table.cast_column(column, Image(decode=False))
    return encoded.map(lambda row: {IMAGE: row[column]}, remove_columns=others)


def _held_out(table: IterableDataset, count: int, features: Features, name: str) -> Dataset:
    try:
        rows = list(islice(iter(table), count))
    except DataError:
        raise
    except (DatasetsError, OSError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{name} cannot be read: {error.__cause__ or error}") from error
    if not rows:
        raise DataError(f"{name}: a split to hold out for the evaluation holds no images")
    return Dataset.from_list(rows, features=features)


__all__ = ["load_streamed_data", "load_streamed_images", "open_streams"]
