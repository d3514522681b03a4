"""Reading of images for prediction by a detector, from any data set with or without boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value

from ..columns import IMAGE
from ..image_files import ignored_notes, ignored_text, images_below
from ..images import EXTENSIONS, shown_path, stored_path
from ..labelled.tables import read_image_tables
from ..sources import DataError, NoBoxesError
from .rows import RawBoxes
from .sources import read_box_source
from .tables import BoxClasses

IMAGE_TABLE = Features({IMAGE: Image(decode=False), "image_id": Value("string")})


@dataclass
class BoxImageTables:
    """Images of a data set, in the source's splits.

    Args:
        name: Name of the source.
        tables: Table of each split by the source's split names, with the columns of `IMAGE_TABLE`.
        classes: Classes of the source; None where it has no boxes.
    """

    name: str
    tables: dict[str, Dataset]
    classes: BoxClasses | None


def read_box_images(source: Any) -> BoxImageTables:
    """Reads the images of a data set; its boxes, if any, are neither checked nor kept.

    Args:
        source: Data set with boxes, as `read_box_source` takes it; or without boxes, a folder of images or a source of
            `read_source`, whose images get their row as id.

    Raises:
        DataError: There is no such source, or no image in it.
    """
    try:
        return _of_boxes(read_box_source(source))
    except NoBoxesError:
        pass  # prediction needs no boxes
    path = None if isinstance(source, Dataset | Mapping) else Path(source).expanduser()
    if path is not None and path.is_dir() and not any(path.rglob("*.parquet")):
        found = images_below(path)
        if not found.files:
            only = f", only {ignored_text(found.ignored)}" if found.ignored else ""
            raise DataError(f"{path} holds no images ({', '.join(sorted(EXTENSIONS))}){only}")
        ignored_notes(shown_path(path.name), found.ignored)
        return BoxImageTables(shown_path(path.name), {"all": _table(found.files, range(len(found.files)))}, None)
    tables, name = read_image_tables(source)
    numbered = {split: _numbered(table, range(len(table))) for split, table in tables.items()}
    return BoxImageTables(name, numbered, None)


def _of_boxes(raw: RawBoxes) -> BoxImageTables:
    tables = {}
    for name, split in raw.splits.items():
        ids = [image.image_id for image in split.images]
        if split.table is None:
            tables[name] = _table([image.file for image in split.images], ids)
        else:
            tables[name] = _numbered(split.table, ids)
    whole = all(isinstance(image.image_id, int) for split in raw.splits.values() for image in split.images)
    return BoxImageTables(raw.name, tables, BoxClasses(tuple(raw.categories.values()), tuple(raw.categories), whole))


def _table(files: Sequence[Path | None], ids: Any) -> Dataset:
    stored = [None if file is None else stored_path(file) for file in files]
    return Dataset.from_dict({IMAGE: stored, "image_id": [str(key) for key in ids]}, features=IMAGE_TABLE)


def _numbered(table: Dataset, ids: Any) -> Dataset:
    return table.add_column("image_id", [str(key) for key in ids], feature=Value("string"))


__all__ = ["IMAGE_TABLE", "BoxImageTables", "read_box_images"]
