"""`vithub convert`: weights of other libraries in, and back out."""

from pathlib import Path
from typing import Annotated

import typer
from vithub.scripts.printing import say

CONVERSION_TARGETS = ("vithub", "transformers", "timm")


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a folder, a file of weights or a Hub id")],
    target_dir: Annotated[Path, typer.Argument(metavar="FOLDER", help="to write; must not exist, or be empty")],
    to: Annotated[str, typer.Option(help="vithub, transformers or timm")] = "vithub",
    image_size: Annotated[int | None, typer.Option(help="pixels  [default: the checkpoint's]")] = None,
    patch_size: Annotated[int | None, typer.Option(help="pixels  [default: the checkpoint's]")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="image-classification, masked-image-modeling, backbone or feature-maps  [default: the checkpoint's]"
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of a Hub id  [default: main]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what the folder holds")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """Converts a checkpoint of transformers, timm or DeiT's authors, or one of ours to transformers or timm."""
    if to not in CONVERSION_TARGETS:
        raise typer.BadParameter(f"--to takes one of {', '.join(CONVERSION_TARGETS)}, got {to!r}")
    from vithub.data.text.json_text import json_text
    from vithub.hub.conversion.convert import convert as run

    report = run(
        source, target_dir, to, task=task, image_size=image_size, patch_size=patch_size, revision=revision,
        overwrite=overwrite,
    )  # fmt: skip
    if json_:
        typer.echo(json_text(report.to_dict()))
        return
    say(f"{report.architecture}: {report.tensors} tensors, {report.parameters:,} values, into {target_dir}")
    if report.max_difference is None:
        typer.echo("no outputs were compared: no other library has computed this model with this head")
    else:
        say(f"largest difference from the source, fp32, {len(report.differences)} comparisons: "
                   f"{report.max_difference:.2e}")  # fmt: skip
    for note in report.notes:
        say(f"note: {note}")
