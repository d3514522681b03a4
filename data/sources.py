"""Reading of labelled images from folders, tables, the Hub and memory."""

import re
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    List,
    Value,
    disable_progress_bars,
    enable_progress_bars,
    load_dataset,
)
from datasets.exceptions import DatasetsError
from datasets.utils import are_progress_bars_disabled

from .argument_names import argument, column_argument
from .digits import digits_dataset
from .image_files import ImageFiles, ignored_notes, ignored_text, images_below
from .images import EXTENSIONS, real_path, shown_path, stored_path

_BREAKS = re.compile("[\n\r\x0b\x0c\x1b\x1c-\x1e\x85\u2028\u2029]")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
LABEL_NAMES = ("label", "labels", "class", "target", "category", "fine_label", "species", "y")
IMAGE_NAMES = ("image", "img", "picture", "photo", "file_name", "filename", "image_path", "path", "file")


class DataError(ValueError):
    """A data set cannot be used; the message, one line, names the file, row or column and what would be right."""

    def __init__(self, message: str) -> None:
        # names of columns, files and classes may contain line breaks
        super().__init__(_BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), message))


class NoBoxesError(DataError):
    """A data set can be read but has no boxes."""


@dataclass
class RawSplits:
    """Tables as they were read, before labels are checked.

    Args:
        tables: Table of each split, by the source's split names.
        name: Name of the source, for messages and model cards.
        folder: Folder that relative image paths start from; None for the current one.
        notes: Remarks for readers of the results, such as on files that were not read.
    """

    tables: dict[str, Dataset]
    name: str
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)


def read_source(source: Any, revision: str | None = None) -> RawSplits:
    """Reads the tables of a data set without decoding its images.

    Args:
        source: Data set: "digits"; a folder with one folder per class, or with such folders for "train", "validation"
            and "test"; a folder of Parquet files; a `.csv`, `.tsv` or `.parquet` file with a column of images or
            paths; a Hub id; or a `Dataset` or `DatasetDict`.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.

    Raises:
        DataError: There is no such source, or nothing usable in it.
    """
    if isinstance(source, Dataset):
        return RawSplits({"train": source}, "a Dataset in memory")
    if isinstance(source, Mapping):
        return RawSplits(dict(source), "a DatasetDict in memory")
    if source == "digits":
        return RawSplits({"all": digits_dataset()}, "digits")
    path = Path(source).expanduser()
    if path.is_file():
        return _read_table(path)
    if path.is_dir():
        parquet = sorted(path.rglob("*.parquet"))
        return _read_parquet_folder(path) if parquet else _read_class_folders(path)
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise DataError(f"no data set at {source}: give an existing folder or file, a Hub id (user/name) or 'digits'")
    loaded = load_dataset(str(source), revision=revision)
    return RawSplits(dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}, str(source))


def _read_parquet_folder(folder: Path) -> RawSplits:
    return RawSplits(dict(read_local(folder, str(folder))), shown_path(folder.name), folder)


def _read_table(file: Path) -> RawSplits:
    kinds = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
    if file.suffix not in kinds:
        raise DataError(
            f"{file} is no data set: give a folder with one folder of images per class, or a .csv, .tsv or .parquet "
            f"file, got {file.suffix or 'a file without an extension'}"
        )
    options = {"sep": "\t"} if file.suffix == ".tsv" else {}
    tables = read_local(file, kinds[file.suffix], data_files={"train": str(file)}, **options)
    return RawSplits(dict(tables), shown_path(file.name), file.parent)


def read_local(source: Path, *arguments: Any, **options: Any) -> Any:
    """Calls `load_dataset` on local files, without its progress bars.

    Args:
        source: File or folder that messages name.
        *arguments: Arguments of `load_dataset`.
        **options: Keyword arguments of `load_dataset`.

    Raises:
        DataError: The files cannot be read; the message names `source`.
    """
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return load_dataset(*arguments, **options)
    except (DatasetsError, OSError, ValueError, tarfile.TarError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"{shown_path(source)} cannot be read: {reason}") from error
    finally:
        if shown:
            enable_progress_bars()


def _read_class_folders(folder: Path) -> RawSplits:
    """Reads a folder with one folder per class, or with one such folder per split."""
    splits, names = class_folders(folder)
    return _class_splits(splits, names, folder)


def class_folders(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Finds the folder of each split, "all" where there are none, and the class names, which are folders in them.

    Raises:
        DataError: The folder has no folders, or folders of splits beside others.
    """
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} is the folder of a model, and wanted here is one with a folder of images per class")
    below = _subfolders(folder)
    if not below:
        raise DataError(f"{folder} holds neither Parquet files nor one folder of images per class{_instead(folder)}")
    known = {name for names in SPLIT_NAMES.values() for name in names}
    if not any(path.name.lower() in known for path in below):
        return {"all": folder}, [path.name for path in below]
    splits = [path for path in below if path.name.lower() in known]
    if others := [path.name for path in below if path not in splits]:
        raise DataError(
            f"{folder} mixes folders of splits ({[s.name for s in splits]}) and others ({others}): put the folders of "
            f"classes into those of the splits, as {splits[0].name}/{others[0]}, or move the others away"
        )
    names = sorted({path.name for split in splits for path in _subfolders(split)})
    return {split.name.lower(): split for split in splits}, names


def _instead(folder: Path) -> str:
    """Ending of an error about a folder without class folders: what it holds in their place, and what to do."""
    found = images_below(folder, deep=False)
    if found.files:
        count = f"{len(found.files)} {'image' if len(found.files) == 1 else 'images'}"
        return f": it holds {count} directly; move those of each class into a folder with the name of the class"
    if tables := sorted(file.name for file in folder.glob("*.[ct]sv")):
        return f": it holds {tables[0]}; to read a table of images and labels, name the file itself"
    if found.ignored:
        return f": it holds only {ignored_text(found.ignored)}; an image is {', '.join(sorted(EXTENSIONS))}"
    return ": it is empty"


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def read_lines(file: Path) -> list[str]:
    """Lines of a text file, without empty ones.

    Raises:
        DataError: The file cannot be read, or is not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{shown_path(file)} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _class_splits(splits: dict[str, Path], classes: list[str], folder: Path) -> RawSplits:
    """Reads one folder per split, each with one folder per class; notes say which files were not read."""
    tables: dict[str, Dataset] = {}
    name = shown_path(folder.name)
    read: list[Path] = []
    stray = images_below(folder, deep=False).files
    ignored: Counter[str] = Counter()
    for split, place in splits.items():
        found = {label: images_below(place / label) for label in classes}
        tables[split] = _class_table(found, place)
        for one in found.values():
            ignored += one.ignored
        read += [file for one in found.values() for file in one.files]
        if place != folder:
            stray += images_below(place, deep=False).files
    return RawSplits(tables, name, folder, ignored_notes(name, ignored, stray, read))


def _class_table(classes: dict[str, ImageFiles], place: Path) -> Dataset:
    files: list[str] = []
    labels: list[int] = []
    for label, (name, found) in enumerate(classes.items()):
        if stored_path(name) != name:
            raise DataError(
                f"the name of the folder {shown_path(place / name)} is not UTF-8: rename it, as it is a class"
            )
        if not found.files:
            only = f", only {ignored_text(found.ignored)}" if found.ignored else ""
            raise DataError(
                f"the class {name!r} has no images in {shown_path(place / name)}{only}; an image is "
                f"{', '.join(sorted(EXTENSIONS))}"
            )
        files += [stored_path(file) for file in found.files]
        labels += [label] * len(found.files)
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=list(classes))})
    return Dataset.from_dict({"image": files, "label": labels}, features=features)


def find_image_column(table: Dataset, named: str | None) -> str:
    """Name of the image column: the one named, the only one of type `Image`, or one with a usual name.

    Raises:
        DataError: There is no such column.
    """
    return _find_column(table, named, "image", IMAGE_NAMES, lambda feature: isinstance(feature, Image))


def find_label_column(table: Dataset, named: str | None, image_column: str) -> str:
    """Name of the label column: the one named, the only one of class labels, or one with a usual name.

    Raises:
        DataError: There is no such column.
    """

    def is_label(feature: Any) -> bool:
        return isinstance(feature, ClassLabel) or (
            isinstance(feature, List) and isinstance(feature.feature, ClassLabel)
        )

    return _find_column(table.remove_columns(image_column), named, "label", LABEL_NAMES, is_label)


def _find_column(table: Dataset, named: str | None, what: str, usual: tuple[str, ...], fits: Any) -> str:
    columns = ", ".join(table.column_names)
    if named is not None:
        if named not in table.column_names:
            raise DataError(
                f"there is no {what} column {named!r}, which {argument(f'{what}_column')} names; the columns are: "
                f"{columns}"
            )
        return named
    typed = [name for name, feature in table.features.items() if fits(feature)]
    if len(typed) == 1:
        return typed[0]
    by_name = [name for name in usual if name in (typed or table.column_names)]
    if by_name:
        return by_name[0]
    raise DataError(f"no {what} column was found among: {columns}; name it with {column_argument(f'{what}_column')}")


def encoded_images(table: Dataset, column: str, folder: Path | None) -> Dataset:
    """Converts `column` of a table to encoded images, {"bytes", "path"}; relative paths start from `folder`.

    Raises:
        DataError: The column holds neither images, nor encoded images, nor paths; the message names its type.
    """
    feature = table.features[column]
    if isinstance(feature, Image):
        return table.cast_column(column, Image(decode=False))
    scalar = feature.dtype if isinstance(feature, Value) else None
    texts = ("string", "large_string", "binary", "large_binary", "null")
    flat = isinstance(feature, List) and isinstance(feature.feature, Value)  # a nested list may be an array of pixels
    if (scalar is not None and scalar not in texts) or flat:
        raise DataError(
            f"column {column!r} must hold images, paths of images or their encoded bytes, got {_described(feature)}"
        )
    if isinstance(feature, Value) and feature.dtype in ("string", "large_string"):
        base = folder or Path()

        def absolute(paths: list[str | None]) -> dict[str, list[str | None]]:
            return {column: [None if path is None else stored_path(base / real_path(path)) for path in paths]}

        table = table.map(absolute, batched=True, input_columns=[column], desc=None, load_from_cache_file=False)
    return table.cast_column(column, Image(decode=False))


def _described(feature: Any) -> str:
    """Type of a column of numbers, dates or flat lists, in words."""
    return f"lists of {feature.feature.dtype}" if isinstance(feature, List) else str(feature.dtype)


__all__ = [
    "DataError",
    "NoBoxesError",
    "RawSplits",
    "class_folders",
    "encoded_images",
    "find_image_column",
    "find_label_column",
    "read_lines",
    "read_local",
    "read_source",
]
