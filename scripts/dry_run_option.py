"""Options of `finetune` and `pretrain` that measure before a run: `--dry-run` and `--batch-size auto`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer
from vithub.scripts.printing import say

BatchSize = Annotated[
    str | None,
    typer.Option(
        metavar="INTEGER|auto",
        help="images per step; auto: the recipe's, in the largest parts that fit into memory  [default: the recipe's]",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="train nothing: show the data, a picture of augmented batches, and time and memory of a few steps",
    ),
]
DryRunJson = Annotated[bool, typer.Option("--json", help="print what --dry-run found as JSON")]


def batch_size_of(text: str | None) -> int | Literal["auto"] | None:
    """Returns the value of `--batch-size`."""
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"--batch-size takes a number of images or auto, got {text!r}") from None


def check_dry_run_options(dry_run: bool, json_: bool, resume: bool) -> None:
    """Rejects options that contradict each other, before libraries are imported."""
    if json_ and not dry_run:
        raise typer.BadParameter("--json prints what --dry-run found; give both")
    if dry_run and resume:
        raise typer.BadParameter("--dry-run shows a run before it begins; it takes no --resume")


def print_dry_run(report: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints the report of a dry run as text or JSON."""
    from vithub.data.text.json_text import json_text
    from vithub.training.trial.dry_run_text import dry_run_text

    if as_json:
        typer.echo(json_text(dict(report)))
    else:
        say(dry_run_text(report))
