"""Command `vithub check-data`: content and faults of a data set of boxes, or of photos with labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from vithub.data.text.terminal_text import visible
from vithub.scripts.printing import say

if TYPE_CHECKING:
    from vithub.data.boxes.checks import Pixels

_BOX_ROWS = {
    "images": "images",
    "without_boxes": "images without boxes",
    "boxes": "boxes",
    "crowds": "of these crowds",
    "small": "of these below 32 x 32 pixels",
    "medium": "of these up to 96 x 96",
    "large": "of these larger",
    "most_boxes": "most boxes in an image",
}
_PHOTO_ROWS = {"images": "images", "unreadable": "of these unreadable", "classes": "classes"}
_COLORS = {"error": "bold red", "repairable": "red", "warning": "yellow", "note": "cyan"}
_CLASSES_SHOWN = 40


def check_data(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="photos with labels as finetune takes them; or boxes: COCO .json or its folder, Pascal VOC or YOLO "
            "folder, data.yaml, Parquet with a column of objects; or a Hub id",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="new folder for report.json and pictures or report.html  [default: none]")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classification for photos with labels, detection for boxes  [default: found]")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="of photos  [default: found]")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="backbone or classifier, a folder or Hub id: its embeddings find wrong labels and more photos that "
            "look alike  [default: none]"
        ),
    ] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="read photos as a stream instead of loading all of them")
    ] = False,
    num_queries: Annotated[
        int | None, typer.Option(min=1, help="of the model: images with more boxes are errors  [default: not checked]")
    ] = None,
    box_format: Annotated[
        str | None,
        typer.Option(help="xywh, xyxy, cxcywh, then pixels or relative  [default: the kind's usual, or what fits]"),
    ] = None,
    boxes_on: Annotated[
        str | None, typer.Option(help="upright or stored: the pixels boxes are on where EXIF turns an image")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="judge as if boxes beyond their images may be cut or left out")
    ] = False,
    augmentation: Annotated[
        str | None,
        typer.Option(help="detr or light: picture of a batch of boxes as training would see it, into --output"),
    ] = None,
    shortest: Annotated[int, typer.Option(min=1, help="pixels of the shorter side, with --augmentation")] = 480,
    objects_column: Annotated[str | None, typer.Option(help="of boxes  [default: found]")] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="do not decode the images: faster, blind to damaged pixels")
    ] = False,
    examples: Annotated[int, typer.Option(min=0, help="rows shown of each kind of fault")] = 3,
    json_: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Checks photos with labels, or boxes, before training; exit code 1 if they cannot be trained on."""
    if boxes_on not in (None, "upright", "stored"):
        raise typer.BadParameter(f"--boxes-on takes upright or stored, got {boxes_on!r}")
    if task not in (None, "classification", "detection"):
        raise typer.BadParameter(f"--task takes classification or detection, got {task!r}")
    if augmentation is not None:
        _check_augmentation(augmentation, output)
    _check_mixed(
        task,
        {
            "--num-queries": num_queries, "--box-format": box_format, "--boxes-on": boxes_on,
            "--repair": repair or None, "--augmentation": augmentation, "--objects-column": objects_column,
        },
        {"--label-column": label_column, "--model": model, "--streaming": streaming or None},
    )  # fmt: skip
    if model is not None and headers_only:
        raise typer.BadParameter("--model decodes the images, which --headers-only leaves out")
    from rich.console import Console
    from vithub.data.boxes.report import BoxReport
    from vithub.data.text.json_text import json_text
    from vithub.hub.folders import check_target, new_folder
    from vithub.training.data_check import check_data as run
    from vithub.training.runtime.progress import TerminalReporter

    if output is not None:
        check_target(output.expanduser().absolute())
    columns: dict[str, Any] = {"objects_column": objects_column} if objects_column else {}
    with TerminalReporter() as reporter:
        report = run(
            data, task="detection" if augmentation else task, num_queries=num_queries, repair=repair,
            box_format=box_format, boxes_on=cast("Pixels | None", boxes_on),
            label_column=label_column, model=model, streaming=streaming, headers_only=headers_only,
            reporter=reporter, **columns,
        )  # fmt: skip
    if output is not None:
        with new_folder(output) as staging:
            report.save(staging)
            if augmentation is not None:
                _save_batch(report, augmentation, shortest, staging / "augmented.png")
    boxes = isinstance(report, BoxReport)
    if json_:
        typer.echo(json_text(report.to_dict(), default=str))
    else:
        (print_report if boxes else print_photo_report)(report, Console(), examples)
        if output is not None:
            say(f"report.json and {'pictures' if boxes else 'report.html'} are in {output}")
    if not report.usable:
        raise typer.Exit(1)


def _check_mixed(task: str | None, of_boxes: dict[str, Any], of_photos: dict[str, Any]) -> None:
    """Raises a usage error if options of boxes and of photos are mixed, or do not suit the task."""
    boxes = [name for name, value in of_boxes.items() if value is not None]
    photos = [name for name, value in of_photos.items() if value is not None]
    if boxes and task == "classification":
        photos.append("--task classification")
    if photos and task == "detection":
        boxes.append("--task detection")
    if boxes and photos:
        raise typer.BadParameter(f"{photos[0]} is for photos with labels, {boxes[0]} for boxes; give one of them")


def _check_augmentation(name: str, output: Path | None) -> None:
    from vithub.data.boxes.augmentation_settings import BOX_AUGMENTATIONS

    if name not in BOX_AUGMENTATIONS or output is None:
        raise typer.BadParameter(f"--augmentation takes {' or '.join(BOX_AUGMENTATIONS)}, with --output, got {name!r}")


def _save_batch(report: Any, augmentation: str, shortest: int, file: Path) -> None:
    from vithub.data.boxes.augmentation_settings import BOX_AUGMENTATIONS
    from vithub.data.boxes.loading import box_table
    from vithub.data.boxes.previews import augmented_picture
    from vithub.data.sources import DataError
    from vithub.data.splits import find_splits

    checked = report.checked
    split = find_splits({name: name for name in checked.images}, {})["train"]
    table, names = box_table(checked, split), list(checked.source.categories.values())
    if len(table) == 0:
        raise DataError(f"split {split!r} has no image to augment")
    augmented_picture(table, names, BOX_AUGMENTATIONS[augmentation], shortest).save(file)


def print_report(report: Any, console: Any, examples: int = 3) -> None:
    """Prints a report on boxes to a terminal."""
    from rich.table import Table

    source = report.checked.source
    splits = report.splits()
    console.print(_split_table(source, splits, _BOX_ROWS))
    classes = Table("number", "id", "class")
    for row in splits:
        classes.add_column(_line(f"boxes, {row['split']}"))
    for row in report.classes():
        counts = (str(count) for count in row["boxes"].values())
        classes.add_row(str(row["number"]), _line(row["id"]), _line(row["name"]), *counts)
    console.print(classes)
    for row in splits:
        console.print(_line(f"boxes of split {row['split']!r} are {row['format']}"))
    _print_faults(report, console, examples)


def print_photo_report(report: Any, console: Any, examples: int = 3) -> None:
    """Prints a report on photos with labels to a terminal."""
    from rich.table import Table

    source = report.checked.source
    splits = report.splits()
    table = _split_table(source, splits, _PHOTO_ROWS)
    for what in ("modes", "formats"):
        counts = (", ".join(f"{count} {name}" for name, count in row[what].items()) for row in splits)
        table.add_row(what, *(_line(text) for text in counts))
    console.print(table)
    classes = Table("number", "class")
    for row in splits:
        classes.add_column(_line(f"images, {row['split']}"), justify="right")
    found = report.classes()
    for row in found[:_CLASSES_SHOWN]:
        classes.add_row(str(row["number"]), _line(row["name"]), *(str(count) for count in row["images"].values()))
    console.print(classes)
    if len(found) > _CLASSES_SHOWN:
        console.print(_line(f"and {len(found) - _CLASSES_SHOWN} more classes, which --json and --output list"))
    _print_faults(report, console, examples)
    if report.ranking:
        doubtful = sum(one.doubtful for one in report.ranking)
        console.print(
            _line(f"{doubtful} of {len(report.ranking)} labels are likely wrong by embeddings of {report.model}")
        )


def _line(text: Any, style: str = "") -> Any:
    from rich.text import Text

    return Text(visible(str(text)), style=style)


def _split_table(source: Any, splits: list[dict[str, Any]], rows: dict[str, str]) -> Any:
    from rich.table import Table

    table = Table("", title=_line(f"{source.name} ({source.kind})"), title_justify="left")
    for row in splits:
        table.add_column(_line(row["split"]), justify="right")
    for field, title in rows.items():
        table.add_row(title, *(str(row[field]) for row in splits))
    for side in ("width", "height"):
        table.add_row(f"image {side} (pixels)", *("-".join(map(str, dict.fromkeys(row[side]))) for row in splits))
    return table


def _print_faults(report: Any, console: Any, examples: int) -> None:
    source = report.checked.source
    for note in source.notes:
        console.print(_line(f"note: {note}"))
    for fault in report.faults(examples):
        text = f"{fault['severity']}: {fault['count']} x {fault['kind']}: {fault['what']}"
        console.print(_line(text, _COLORS[fault["severity"]]))
        for example in fault["examples"]:
            console.print(_line(f"  {example['text']}"))
    verdict = "can be trained on" if report.usable else "must not be trained on as it is"
    console.print(_line(f"{source.name} {verdict}", "green" if report.usable else "bold red"))


__all__ = ["check_data", "print_photo_report", "print_report"]
