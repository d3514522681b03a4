"""Notebooks and pages made from files in percent format, and run: shared by `tour/build.py` and `notebooks/build.py`.

In the percent format, which editors know, `# %%` begins a cell of code and `# %% [markdown]` one of text. A file is a
page. Notebook and pages hold what running them gave.
"""

import base64
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parent))

from address import repository

REPOSITORY = repository()  # on GitHub, as badges and the cell that installs the package name it
STARTUP = 3600  # seconds until a kernel that does not start is given up, however busy the machine is
_MARK = re.compile(r"^# %%(?P<text> \[markdown\])?$")


@dataclass
class Cell:
    """A cell of the source.

    Args:
        page: Name of its page, without `.md`.
        is_text: Markdown rather than code.
        source: What stands in it.
    """

    page: str
    is_text: bool
    source: str


def read_page(page: str, source: str) -> list[Cell]:
    """The cells of a page, from its file in percent format.

    Raises:
        ValueError: A line stands before the first cell, is no comment in a text, or is a mark that does not exist.
    """
    cells: list[Cell] = []
    for number, line in enumerate(source.splitlines(), 1):
        where = f"line {number} of {page}"
        if mark := _MARK.match(line):
            cells.append(Cell(page, bool(mark["text"]), ""))
        elif line.startswith("# %%"):
            raise ValueError(f"{where} is no mark of a cell (# %% or # %% [markdown]): {line!r}")
        elif not cells:
            raise ValueError(f"{where} stands before the first cell: {line!r}")
        elif cells[-1].is_text and line and not line.startswith("#"):
            raise ValueError(f"{where} is in a text and must be a comment, got {line!r}")
        else:
            cells[-1].source += (line[1:].removeprefix(" ") if cells[-1].is_text else line) + "\n"
    for cell in cells:
        cell.source = cell.source.strip("\n")
    return cells


def read_files(folder: Path) -> list[Cell]:
    """The cells of all pages of a folder, in the order of their names."""
    files = sorted(folder.glob("*.py"))
    return [cell for file in files for cell in read_page(file.stem, file.read_text(encoding="utf-8"))]


def make_notebook(cells: list[Cell]) -> nbformat.NotebookNode:
    """The notebook of these cells, not yet run."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(cells):
        new = nbformat.v4.new_markdown_cell if cell.is_text else nbformat.v4.new_code_cell
        notebook.cells.append(new(cell.source, id=f"cell-{number:03}", metadata={"page": cell.page}))
    return notebook


def run_notebook(notebook: nbformat.NotebookNode, timeout: int | None = None) -> nbformat.NotebookNode:
    """Runs all cells in a process of its own, in an empty folder, and keeps their outputs.

    Args:
        notebook: Its cells.
        timeout: Most seconds for a cell; None waits for as long as it takes.

    Raises:
        CellExecutionError: A cell failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=STARTUP,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,  # else where the output of a cell is cut depends on how fast it came
        )
        # no widgets, so no progress bars either
        client.execute(env=os.environ | {"PYTHONWARNINGS": "ignore:IProgress not found"})
    notebook.metadata["language_info"] = {"name": "python"}  # not the version that happened to run it
    return notebook


def write_parts(notebook: nbformat.NotebookNode) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """The parts of each page of a notebook that was run, as Markdown, and their pictures by file name.

    Raises:
        ValueError: A cell shows something other than text or a picture.
    """
    files: dict[str, bytes] = {}
    texts: dict[str, list[str]] = {}
    for cell in notebook.cells:
        page = cell.metadata["page"]
        parts = texts.setdefault(page, [])
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if output.output_type == "stream":
                parts.append(f"```text\n{output.text.rstrip()}\n```")
            elif png := output.get("data", {}).get("image/png"):
                name = f"pictures/{page}_{1 + sum(file.startswith(f'pictures/{page}_') for file in files)}.png"
                files[name] = base64.b64decode(png)
                parts.append(f"![Picture made by the code above]({name})")
            else:
                raise ValueError(f"a cell of {page} shows something other than text or a picture: {output}")
    return texts, files


def title(parts: list[str]) -> str:
    """The heading of a page."""
    return parts[0].splitlines()[0].removeprefix("# ")
