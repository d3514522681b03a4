"""Command `vithub publish` with its options, and the table of files to send."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vithub.data.text.terminal_text import visible
from vithub.scripts.printing import say

STATIC = "static"  # page that needs no server

if TYPE_CHECKING:
    from rich.table import Table
    from vithub.hub.push.report import PublishReport


def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="of a run, or of a saved model")],
    repo_id: Annotated[str, typer.Argument(metavar="USER/NAME", help="on the Hub; made when there is none")],
    private: Annotated[bool, typer.Option("--private", help="make the repository private")] = False,
    revision: Annotated[str | None, typer.Option(help="branch, made when there is none  [default: main]")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="open a pull request instead")] = False,
    tag: Annotated[str | None, typer.Option(help="name for the commit  [default: none]")] = None,
    message: Annotated[str | None, typer.Option(help="of the commit  [default: names vithub's version]")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only list every file, and why it is or is not sent")
    ] = False,
    native: Annotated[
        bool, typer.Option("--native", help="fail where transformers has no class of its own for the model")
    ] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="send the code beside the weights even where none is needed")
    ] = False,
    endpoint: Annotated[
        bool, typer.Option("--endpoint", help="send a handler.py too, for an inference endpoint of the Hub")
    ] = False,
    sign: Annotated[
        Path | None, typer.Option(help="PEM file of an Ed25519 private key, to sign the manifest  [default: unsigned]")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|static[:FOLDER]",
            help="also write its demo page as a folder for a Space; static: one that runs in the visitor's browser",
        ),
    ] = None,
    web_runtime: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="for a static page, as for export  [default: loaded once, by hash]"),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """Publishes a model on the Hub in one commit, and reads it back; the token is that of the login or HF_TOKEN."""
    if create_pr and (revision or tag):
        raise typer.BadParameter("--create-pr goes to main and takes no --revision or --tag")
    if native and bundle:
        raise typer.BadParameter("--native and --bundle exclude each other; give one of them")
    static, page = _space(space, web_runtime)
    from rich.console import Console
    from vithub.data.text.json_text import json_text
    from vithub.hub.push.publishing import publish as run

    if static and not dry_run:
        from vithub.deployment.web.web_runtime import find_runtime

        find_runtime(web_runtime)  # so that nothing is published where it cannot be had
    report = run(
        folder, repo_id, private=private, revision=revision, create_pr=create_pr, tag=tag, message=message,
        dry_run=dry_run, native=native, bundle=bundle, endpoint=endpoint, sign=sign,
    )  # fmt: skip
    if page is not None and not dry_run:
        _write_page(page, folder, repo_id, static, web_runtime)
    if json_:
        typer.echo(json_text(report.to_dict()))
        return
    if dry_run:
        Console().print(file_table(report))
        say(f"{len(report.sent)} files, {_size(sum(f.size for f in report.sent))}, would go to {repo_id}")
        say(report.why)
        return
    for line in summary(report):
        say(line)
    if page is not None:
        say(f"{page}: its page; upload it with: hf upload USER/NAME {page} --repo-type space")


def _space(space: str | None, web_runtime: str | None) -> tuple[bool, Path | None]:
    """Reads `--space`: returns whether the page is static, and the folder to write, None if no page is asked for."""
    kind, _, named = (space or "").partition(":")
    static = kind == STATIC
    if web_runtime is not None and not static:
        raise typer.BadParameter(f"--web-runtime goes with --space {STATIC}")
    if space is None:
        return False, None
    page = Path(named or STATIC) if static else Path(space)
    if page.exists():
        raise typer.BadParameter(f"--space takes a new folder, and {page} exists")
    return static, page


def _write_page(page: Path, folder: Path, repo_id: str, static: bool, web_runtime: str | None) -> None:
    if not static:
        from vithub.interpretability.demo.space import write_space

        write_space(page, [repo_id])
        return
    from vithub.deployment.exporting import export
    from vithub.deployment.web.web_page import write_space_card

    export(folder, "onnx", web=True, web_runtime=web_runtime, output=page)
    write_space_card(page, repo_id.rpartition("/")[2], repo_id)


def summary(report: "PublishReport") -> list[str]:
    """Summarizes a publication, one line per fact."""
    assert report.commit is not None
    if report.nothing_to_do:
        lines = [f"{report.repo_id} holds all of it already, at {report.commit[:12]}; nothing was sent"]
    else:
        size = sum(file.size for file in report.sent if file.path in report.changed)
        lines = [f"{len(report.changed)} files, {_size(size)}, read back and the same: commit {report.commit[:12]}"]
        lines += [f"removed, as replaced: {', '.join(report.removed)}"] if report.removed else []
    lines += [report.why]
    lines += [f"the card loads the commit {report.pinned[:12]}"] if report.pinned else []
    lines += [f"tag {report.tag}"] if report.tag else []
    return [*lines, report.pull_request or str(report.url)]


def file_table(report: "PublishReport") -> "Table":
    """Makes a table of every file in the folder, with its size and whether it is sent."""
    from rich.table import Table
    from rich.text import Text

    table = Table("file", "size", "sent", "why", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for file in report.files:
        table.add_row(Text(visible(file.path)), _size(file.size), "yes" if file.sent else "no", file.why)
    return table


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


__all__ = ["file_table", "publish", "summary"]
