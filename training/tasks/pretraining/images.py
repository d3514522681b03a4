"""Images without labels: any source of images, whose labels are ignored, in splits for pretraining."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image

from ....data.columns import IMAGE
from ....data.image_files import ignored_notes, images_below
from ....data.images import EXTENSIONS, shown_path, stored_path
from ....data.sources import DataError, RawSplits, encoded_images, find_image_column, read_source
from ....data.splits import SplitTables, complete_splits, find_splits, split_role
from ....data.streaming.tables import load_streamed_images
from ...recipe.sections import DataSettings


@dataclass
class UnlabelledData(SplitTables):
    """Data set of images without labels, in splits with the column "image" (encoded).

    Args:
        name: Name of the source.
        train: Training split, a table or a stream.
        validation: Validation split, on which loss and features are measured after each epoch.
        test: Test split, on which they are measured once at the end; None where the source has none and none was drawn.
        notes: Remarks on the splits for readers of the results.
        drawn: Names of the splits that were drawn from the training split.
    """

    name: str
    train: Any
    validation: Dataset
    test: Dataset | None
    notes: list[str] = field(default_factory=list)
    drawn: frozenset[str] = frozenset()


def load_unlabelled(source: Any, settings: DataSettings) -> UnlabelledData:
    """Reads images and splits them; a folder of images needs no folders of classes.

    Args:
        source: Data set in any form that finetuning takes, or a folder with images anywhere below it.
        settings: Data settings of the recipe.

    Raises:
        DataError: The data set cannot be used; the message names the file, row or column and the fault.
    """
    named = {role: getattr(settings, f"{role}_split") for role in ("train", "validation", "test")}
    if settings.streaming:
        streams, name, notes = load_streamed_images(
            source, held_out_images=settings.held_out_images, image_column=settings.image_column,
            revision=settings.revision, named=named,
        )  # fmt: skip
        return UnlabelledData(name, streams["train"], streams["validation"], streams.get("test"), notes)
    raw = _read_images(source, settings.revision)
    column = find_image_column(next(iter(raw.tables.values())), settings.image_column)
    found = {role: _images_alone(table, column, raw.folder) for role, table in find_splits(raw.tables, named).items()}
    fractions = (settings.validation_fraction, settings.test_fraction)
    tables, about_draw = complete_splits(found, lambda table: [0] * len(table), fractions, settings.split_seed)
    notes = [*raw.notes, *(note.replace("stratified, ", "") for note in about_draw)]
    drawn = frozenset(tables.keys() - found.keys())
    return UnlabelledData(raw.name, tables["train"], tables["validation"], tables.get("test"), notes, drawn)


def _read_images(source: Any, revision: str | None) -> RawSplits:
    """Tables of a source by the source's split names; all images below a folder if it holds no Parquet files."""
    if isinstance(source, Mapping | Dataset) or source == "digits":
        return read_source(source, revision)
    folder = Path(source).expanduser()
    if not folder.is_dir() or any(folder.rglob("*.parquet")):
        return read_source(source, revision)
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))
    of_splits = bool(below) and all(split_role(path.name, whole=True) for path in below)
    places = {path.name.lower(): path for path in below} if of_splits else {"all": folder}
    tables: dict[str, Dataset] = {}
    notes: list[str] = []
    for split, place in places.items():
        found = images_below(place)
        if not found.files:
            raise DataError(f"{shown_path(place)} holds no images; an image is {', '.join(sorted(EXTENSIONS))}")
        notes += ignored_notes(shown_path(place.name), found.ignored, read=found.files)
        files = {IMAGE: [stored_path(file) for file in found.files]}
        tables[split] = Dataset.from_dict(files, features=Features({IMAGE: Image(decode=False)}))
    return RawSplits(tables, shown_path(folder.name), folder, notes)


def _images_alone(table: Dataset, column: str, folder: Path | None) -> Dataset:
    """Table with the column "image" (encoded) alone."""
    encoded = encoded_images(table.select_columns([column]), column, folder)
    return encoded if column == IMAGE else encoded.rename_column(column, IMAGE)


__all__ = ["UnlabelledData", "load_unlabelled"]
