"""Command `vithub runs`: the runs below a folder, side by side."""

from pathlib import Path
from typing import Annotated

import typer
from vithub.scripts.printing import say


def runs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="where the folders of runs are, such as runs/")],
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help=".png, .svg or .pdf with the curves of all  [default: none]")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one line of JSON per run")] = False,
) -> None:
    """Lists the runs below a folder, best first: date, model, headline figure, time, and where their recipes differ."""
    from vithub.data.text.json_text import json_text
    from vithub.training.run_list.listing import list_runs
    from vithub.training.run_list.text import runs_text, save_curves

    place = Path(folder).expanduser()
    entries = list_runs(place)
    if plot is not None:
        save_curves(entries, place, Path(plot).expanduser())
    if json_:
        for one in entries:
            typer.echo(json_text(one.to_dict()))
    elif not entries:
        say(f"there is no run below {folder}")
    else:
        say(runs_text(entries, place))


__all__ = ["runs"]
