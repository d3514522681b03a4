"""Makes the tour: runs the files in `source` and writes the notebook and the pages beside them.

    python docs/tour/build.py

Each file is a page, in the percent format that editors know: `# %%` begins a cell of code, `# %% [markdown]` one of
text. They run in one process, in the order of their names. Notebook and pages hold what running them gave.
"""

import base64
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
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


def read_tour() -> list[Cell]:
    """The cells of all pages, in their order."""
    files = sorted(HERE.glob("source/*.py"))
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


def make_pages(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The pages of a notebook that was run, and their pictures, by file name."""
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
    names = list(texts)
    for number, (page, parts) in enumerate(texts.items()):
        around = ["[All pages](README.md)"]
        if number:
            around.insert(0, f"[← {title(texts[names[number - 1]])}]({names[number - 1]}.md)")
        if number + 1 < len(names):
            around.append(f"[{title(texts[names[number + 1]])} →]({names[number + 1]}.md)")
        files[f"{page}.md"] = ("\n\n".join([*parts, "---", " · ".join(around)]) + "\n").encode()
    files["README.md"] = _contents({page: title(parts) for page, parts in texts.items()}).encode()
    return files


def title(parts: list[str]) -> str:
    """The heading of a page."""
    return parts[0].splitlines()[0].removeprefix("# ")


def _contents(titles: dict[str, str]) -> str:
    lines = [f"{number}. [{name}]({page}.md)" for number, (page, name) in enumerate(titles.items(), 1)]
    return "\n".join(
        [
            "# A tour of the vision transformer",
            "",
            "How ViT, DeiT and DETR work: explained part by part, computed by hand and by this package, and looked at.",
            "The same as [one notebook](tour.ipynb), which runs without a network in a few minutes on two cores.",
            "",
            *lines,
            "",
            "The source is [one file per page](source); `make tour` runs them and writes the notebook and these pages.",
            "",
        ]
    )


def main() -> None:
    """Runs the tour and writes everything."""
    notebook = run_notebook(make_notebook(read_tour()))
    nbformat.write(notebook, HERE / "tour.ipynb")
    for old in (*HERE.glob("*.md"), *HERE.glob("pictures/*.png")):
        old.unlink()
    for name, content in make_pages(notebook).items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
