"""Command `vithub compare` with its options."""

import shlex
import sys
from dataclasses import fields, replace
from typing import Annotated, Any

import typer
from vithub.comparison.section_names import ALL_SECTIONS
from vithub.scripts.printing import say


def compare(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL...]",
            help="folders, Hub ids, timm:NAME, torchvision:NAME; with @FILE.safetensors or @random after the name; "
            "LABEL=MODEL names one",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="as for finetune; every section but cost needs it  [default: none]")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="folder for report.json, report.md, report.html  [default: none]")
    ] = None,
    sections: Annotated[
        str | None,
        typer.Option(
            help="of classifiers cost, translation, locality, robustness, data, of detectors cost, coco, errors, with "
            "commas  [default: all but data, which trains; without --data cost alone]"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="fewer sizes, rounds, corruptions and images")] = False,
    images: Annotated[int | None, typer.Option(min=2, help="to judge on  [default: 400, quick 100]")] = None,
    split: Annotated[str | None, typer.Option(help="of --data  [default: test, or the last]")] = None,
    seed: Annotated[int, typer.Option(help="of all random choices")] = 0,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16; the cost of classifiers is in fp32")] = "auto",
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="of the trainings of data: fractions, seeds, epochs, image_size ..."),
    ] = None,
    part: Annotated[str, typer.Option(help="I/N: of the trainings of data, every N-th from I on")] = "0/1",
    resume: Annotated[bool, typer.Option("--resume", help="keep the sections that --output holds already")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """Compares classifiers (ViT, hybrid or CNN) or detectors: cost, quality, what they get wrong, and which to take."""
    wanted = sections.split(",") if sections else (None if data else ["cost"])
    if unknown := [name for name in wanted or () if name not in ALL_SECTIONS]:
        raise typer.BadParameter(f"--sections takes {', '.join(ALL_SECTIONS)}, got {', '.join(unknown)}")
    if precision not in ("auto", "fp32", "bf16"):
        raise typer.BadParameter(f"--precision takes auto, fp32 or bf16, got {precision!r}")
    first, separator, count = part.partition("/")
    if not separator or not first.isdigit() or not count.isdigit() or not int(first) < int(count):
        raise typer.BadParameter(f"--part takes I/N with I from 0 below N, got {part!r}")
    from vithub.comparison.comparing import compare as run
    from vithub.data.text.json_text import json_text
    from vithub.training.runtime.progress import TerminalReporter

    with TerminalReporter() as reporter:
        comparison = run(
            models or [], data, output, sections=wanted, quick=quick, images=images, split=split, seed=seed,
            precision=precision, grid=_grid(grid, quick) if grid else None, part=(int(first), int(count)),
            resume=resume,
            command=shlex.join(["vithub", *sys.argv[1:]]) if sys.argv[1:2] == ["compare"] else None, reporter=reporter,
        )  # fmt: skip
    if json_:
        typer.echo(json_text(comparison.to_dict()))
        return
    for heading, sentences in comparison.verdict_by_heading.items():
        say(heading)
        for sentence in sentences:
            say(f"  {sentence}")
    if output is not None:
        say(f"the report is in {output}/report.html")


def _grid(texts: list[str], quick: bool) -> Any:
    """Returns the grid's settings with some replaced, such as `epochs=3` or `fractions=[0.1, 1.0]`."""
    from vithub.comparison.comparing import grid_settings
    from vithub.training.recipe.yaml_text import read_yaml

    settings = grid_settings(quick)
    known = {one.name for one in fields(settings)}
    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in known:
            raise typer.BadParameter(f"--grid takes NAME=VALUE with a name of {', '.join(sorted(known))}, got {text!r}")
        found = read_yaml(value)
        values[name] = tuple(found) if isinstance(found, list) else found
    return replace(settings, **values)
