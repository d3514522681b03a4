"""Command `vithub verify`: a published model against its manifest, its signature and its figures."""

from pathlib import Path
from typing import Annotated

import typer
from vithub.scripts.printing import say


def verify(
    source: Annotated[str, typer.Argument(metavar="REPO_OR_FOLDER", help="a published model: Hub id or folder")],
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit  [default: main]")] = None,
    key: Annotated[
        Path | None, typer.Option(help="PEM file of the public key that must have signed it  [default: not checked]")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="data that its figures were measured on: measure them again  [default: do not]")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Checks a published model: signature, hash of each file, code, and with --data its figures; exit code 1 if not."""
    from vithub.data.text.json_text import json_text
    from vithub.training.runtime.progress import TerminalReporter
    from vithub.training.verification import verify as run

    with TerminalReporter() as reporter:
        result = run(source, revision=revision, key=key, data=data, reporter=reporter)
    if json_:
        typer.echo(json_text(result.to_dict()))
    else:
        for line in result.checked:
            say(f"holds: {line}")
        for path, same in result.code.items():
            say(f"code: {path} would run, {'as this version of vithub writes it' if same else 'and is unknown'}")
        for line in result.problems:
            say(f"problem: {line}", err=True)
        say(f"{source} {'holds what its manifest states' if result.holds else 'must not be trusted as it is'}")
    if not result.holds:
        raise typer.Exit(1)


__all__ = ["verify"]
