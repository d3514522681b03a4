"""Reading of data sets of boxes from files of COCO, Pascal VOC and YOLO, and from tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..sources import DataError, NoBoxesError, read_source
from .readers.coco import find_coco_files, read_coco
from .readers.table import read_table
from .readers.voc import read_voc
from .readers.yolo import is_yolo_folder, read_yolo
from .rows import RawBoxes


def read_box_source(
    source: Any, *, objects_column: str | None = None, image_column: str | None = None, revision: str | None = None
) -> RawBoxes:
    """Reads the annotations of a data set without checking them or decoding its images.

    Args:
        source: Data set: a COCO `.json` file, or a folder of them with their images; a folder of Pascal VOC's XML
            files; a YOLO folder or its `data.yaml`; a folder of Parquet files, a `.parquet` file, a Hub id, a
            `Dataset` or a `DatasetDict` with a column of objects.
        objects_column: Name of the column of objects; None finds it.
        image_column: Name of the image column; None finds it.
        revision: Branch, tag or commit of a Hub id; None takes the default branch.

    Raises:
        DataError: There is no such source, it holds no boxes, or it has no columns and one was named.
    """
    if not isinstance(source, Dataset | Mapping) and (found := _read_files(Path(source).expanduser())) is not None:
        columns = {"objects_column": objects_column, "image_column": image_column}
        if named := [f"`{name}` {column!r}" for name, column in columns.items() if column is not None]:
            raise DataError(f"{source} is read as {found.kind}, which has no columns: {', '.join(named)} has no effect")
        return found
    return read_table(read_source(source, revision), objects_column, image_column)


def _read_files(path: Path) -> RawBoxes | None:
    """Reads files of COCO, Pascal VOC or YOLO; None where the source is a table."""
    if path.is_file() and path.suffix == ".json":
        return read_coco({"all": path}, path.stem)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return read_yolo(path)
    return _read_folder(path) if path.is_dir() else None


def _read_folder(folder: Path) -> RawBoxes | None:
    """Reads a folder in the format of the files in it; None where it holds Parquet files."""
    if any(folder.rglob("*.parquet")):
        return None
    if files := find_coco_files(folder):
        return read_coco(files, folder.name)
    if any(folder.rglob("*.xml")):
        return read_voc(folder)
    if is_yolo_folder(folder):
        return read_yolo(folder)
    raise NoBoxesError(
        f"{folder} holds no boxes, from which a detector learns: neither COCO's .json, Pascal VOC's .xml, YOLO's "
        "folders `images` and `labels`, nor Parquet files; photos with a label each are for a classifier"
    )


__all__ = ["read_box_source"]
