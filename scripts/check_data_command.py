"""Command `vithub check-data`: content and faults of a data set of boxes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from vithub.data.text.terminal_text import visible
from vithub.scripts.printing import say

_ROWS = {
    "images": "images",
    "without_boxes": "images without boxes",
    "boxes": "boxes",
    "crowds": "of these crowds",
    "small": "of these below 32 x 32 pixels",
    "medium": "of these up to 96 x 96",
    "large": "of these larger",
    "most_boxes": "most boxes in an image",
}


def check_data(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="COCO .json or its folder, Pascal VOC or YOLO folder, data.yaml, Parquet with a column of objects, "
            "or a Hub id",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="new folder for report.json and pictures  [default: none]")
    ] = None,
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
        typer.Option(help="detr or light: picture of a batch as training would see it, into --output"),
    ] = None,
    shortest: Annotated[int, typer.Option(min=1, help="pixels of the shorter side, with --augmentation")] = 480,
    objects_column: Annotated[str | None, typer.Option(help="[default: found]")] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="do not decode the images: faster, blind to damaged pixels")
    ] = False,
    examples: Annotated[int, typer.Option(min=0, help="rows shown of each kind of fault")] = 3,
    json_: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Checks a data set of boxes for training a detector; exit code 1 if it cannot be trained on."""
    if boxes_on not in (None, "upright", "stored"):
        raise typer.BadParameter(f"--boxes-on takes upright or stored, got {boxes_on!r}")
    if augmentation is not None:
        _check_augmentation(augmentation, output)
    from rich.console import Console
    from vithub.data.boxes.report import check_data as run
    from vithub.data.text.json_text import json_text
    from vithub.hub.folders import check_target, new_folder

    if output is not None:
        check_target(output.expanduser().absolute())
    columns: dict[str, Any] = {"objects_column": objects_column} if objects_column else {}
    report = run(
        data, num_queries=num_queries, repair=repair, box_format=box_format,
        boxes_on=boxes_on, headers_only=headers_only, **columns,  # type: ignore[arg-type]  # checked above
    )  # fmt: skip
    if output is not None:
        with new_folder(output) as staging:
            report.save(staging)
            if augmentation is not None:
                _save_batch(report, augmentation, shortest, staging / "augmented.png")
    if json_:
        typer.echo(json_text(report.to_dict(), default=str))
    else:
        print_report(report, Console(), examples)
        if output is not None:
            say(f"report.json and pictures are in {output}")
    if not report.usable:
        raise typer.Exit(1)


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
    """Prints a report to a terminal."""
    from rich.table import Table
    from rich.text import Text

    def line(text: Any, style: str = "") -> Text:
        return Text(visible(str(text)), style=style)

    source = report.checked.source
    splits = report.splits()
    table = Table("", title=line(f"{source.name} ({source.kind})"), title_justify="left")
    for row in splits:
        table.add_column(line(row["split"]), justify="right")
    for field, title in _ROWS.items():
        table.add_row(title, *(str(row[field]) for row in splits))
    for side in ("width", "height"):
        table.add_row(f"image {side} (pixels)", *("-".join(map(str, dict.fromkeys(row[side]))) for row in splits))
    console.print(table)
    classes = Table("number", "id", "class")
    for row in splits:
        classes.add_column(line(f"boxes, {row['split']}"))
    for row in report.classes():
        counts = (str(count) for count in row["boxes"].values())
        classes.add_row(str(row["number"]), line(row["id"]), line(row["name"]), *counts)
    console.print(classes)
    for row in splits:
        console.print(line(f"boxes of split {row['split']!r} are {row['format']}"))
    for note in source.notes:
        console.print(line(f"note: {note}"))
    colors = {"error": "bold red", "repairable": "red", "warning": "yellow", "note": "cyan"}
    for fault in report.faults(examples):
        console.print(line(f"{fault['severity']}: {fault['count']} x {fault['kind']}: {fault['what']}",
                           style=colors[fault["severity"]]))  # fmt: skip
        for example in fault["examples"]:
            console.print(line(f"  {example['text']}"))
    verdict = "can be trained on" if report.usable else "must not be trained on as it is"
    console.print(line(f"{source.name} {verdict}", style="green" if report.usable else "bold red"))


__all__ = ["check_data", "print_report"]
