"""Check of a data set before training: boxes by `data.boxes.report`, labelled photos by `data.checking`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import IterableDataset

from ..configuration.model_task import CLASSIFICATION, DETECTION
from ..data.argument_names import argument, renamed
from ..data.boxes.checks import Pixels
from ..data.boxes.report import BoxReport
from ..data.boxes.report import check_data as check_boxes
from ..data.checking.inspection import inspect_photos
from ..data.checking.photos import read_photos
from ..data.checking.report import PhotoReport
from ..data.sources import NoBoxesError


@renamed(source="data", out="output")
def check_data(
    data: Any,
    *,
    output: str | Path | None = None,
    task: str | None = None,
    num_queries: int | None = None,
    repair: bool = False,
    box_format: str | None = None,
    boxes_on: Pixels | None = None,
    label_column: str | None = None,
    model: str | Path | None = None,
    streaming: bool = False,
    headers_only: bool = False,
    reporter: Any = None,
    **columns: Any,
) -> BoxReport | PhotoReport:
    """Checks a data set before training, of boxes or of photos with labels.

    Of boxes: every image and box, formats, classes, ids, areas, images that occur twice. Of photos: images that cannot
    be read or are odd, classes, the same or similar images within and across splits, and with a model the labels that
    are likely wrong.

    Args:
        data: Data set with boxes, see `read_box_source`, or with labels, as `finetune` takes it.
        output: Folder to write `report.json` and pictures or `report.html` into; None writes nothing.
        task: "classification" for photos with labels, "detection" for boxes; None finds it.
        num_queries: Number of queries of the detector that is to be trained; None skips the check of it.
        repair: Whether training may clip and leave out boxes; see `load_box_data`.
        box_format: Format of the boxes, such as "xyxy pixels"; None takes the usual one of the kind of data set, or
            the one that fits.
        boxes_on: Pixels that boxes refer to where EXIF turns an image, "upright" or "stored"; see `inspect_boxes`.
        label_column: Name of the column of labels; None finds it.
        model: Backbone or classifier, a folder or Hub id, whose embeddings find similar images and wrong labels.
        streaming: Whether to read labelled photos as a stream instead of loading all of them.
        headers_only: Whether to read only the headers of the images and not decode them, which is faster but misses
            damaged and truncated pixels, and similar images.
        reporter: Receives the progress of photos; None shows none.
        **columns: `objects_column`, `image_column` and `revision` of the source.

    Raises:
        DataError: The source cannot be read at all.
        ValueError: Options of boxes and of photos are mixed, or one has no effect.
    """
    of_boxes = {
        "num_queries": num_queries, "repair": repair or None, "box_format": box_format, "boxes_on": boxes_on,
        "objects_column": columns.get("objects_column"),
    }  # fmt: skip
    of_photos = {"label_column": label_column, "model": model, "streaming": streaming or None}
    kind = chosen_task(task, of_boxes, of_photos, headers_only)
    if kind is None and (isinstance(data, IterableDataset) or _are_streams(data)):
        kind = CLASSIFICATION
    if kind != CLASSIFICATION:
        try:
            return check_boxes(
                data, output=output, num_queries=num_queries, repair=repair, box_format=box_format, boxes_on=boxes_on,
                headers_only=headers_only, **columns,
            )  # fmt: skip
        except NoBoxesError:
            if kind == DETECTION:
                raise
    report = _check_photos(data, label_column, model, streaming, headers_only, reporter, columns)
    if output is not None:
        report.save(Path(output).expanduser())
    return report


def _are_streams(data: Any) -> bool:
    return isinstance(data, Mapping) and any(isinstance(table, IterableDataset) for table in data.values())


def chosen_task(
    task: str | None, of_boxes: Mapping[str, Any], of_photos: Mapping[str, Any], headers_only: bool = False
) -> str | None:
    """Task that the options are for, "classification" or "detection"; None where they do not tell.

    Args:
        task: Task that was named, or None.
        of_boxes: Options that only boxes have, None where they are not given.
        of_photos: Options that only labelled photos have, None where they are not given.
        headers_only: Whether only headers are read.

    Raises:
        ValueError: The options contradict each other.
    """
    if task not in (None, CLASSIFICATION, DETECTION):
        raise ValueError(f"{argument('task')} must be {CLASSIFICATION} or {DETECTION}, got {task!r}")
    boxes = [argument(name) for name, value in of_boxes.items() if value is not None]
    photos = [argument(name) for name, value in of_photos.items() if value is not None]
    if photos and (boxes or task == DETECTION):
        other = boxes[0] if boxes else f"task {DETECTION}"
        raise ValueError(f"{photos[0]} is for photos with labels, {other} for boxes")
    if boxes and task == CLASSIFICATION:
        raise ValueError(f"{boxes[0]} is for boxes, which task {CLASSIFICATION} has not")
    if headers_only and of_photos.get("model") is not None:
        raise ValueError(f"{argument('model')} decodes the images, which {argument('headers_only')} leaves out")
    if task is not None:
        return task
    return DETECTION if boxes else CLASSIFICATION if photos else None


def _check_photos(
    data: Any,
    label_column: str | None,
    model: str | Path | None,
    streaming: bool,
    headers_only: bool,
    reporter: Any,
    columns: dict[str, Any],
) -> PhotoReport:
    if model is None:
        photos = read_photos(data, label_column=label_column, streaming=streaming, **columns)
        return PhotoReport(inspect_photos(photos, decode=not headers_only, progress=reporter))
    from .image_embeddings import ImageEmbeddings
    from .label_check import find_doubtful_labels, require_cleanlab

    require_cleanlab()
    photos = read_photos(data, label_column=label_column, streaming=streaming, **columns)
    embeddings = ImageEmbeddings(model)
    checked = inspect_photos(photos, prepare=embeddings.prepare, embed=embeddings.embed, progress=reporter)
    return PhotoReport(checked, str(model), find_doubtful_labels(checked))


__all__ = ["check_data", "chosen_task"]
