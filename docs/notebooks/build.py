"""Makes the short notebooks: runs the files in `source` and writes a notebook and a page of each beside them.

    python docs/notebooks/build.py

Each file is a notebook of its own, in the percent format of `notebook_cells.py`. All run in one process, since
importing the libraries takes longer than most of them; none needs what another has made.
"""

import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from notebook_cells import (  # noqa: E402
    REPOSITORY,
    Cell,
    make_notebook,
    read_files,
    run_notebook,
    title,
    write_parts,
)

HOSTED = "https://colab.research.google.com"
# Pages show a picture of their own, so that the site asks no other origin for one.
BADGE = "pictures/open_in_colab.svg"
INSTALL = f"""\
# In a hosted notebook the package is not there yet.
from importlib.util import find_spec

if find_spec("vithub") is None:
    get_ipython().run_line_magic("pip", 'install -q "vithub[detection] @ git+https://github.com/{REPOSITORY}"')

from transformers.utils import logging

logging.disable_progress_bar()"""


def badge(page: str, picture: str) -> str:
    """A picture that opens a notebook in a hosted one, in Markdown."""
    address = f"{HOSTED}/github/{REPOSITORY}/blob/main/docs/notebooks/{page}.ipynb"
    return f"[![Open in Colab]({picture})]({address})"


def read_notebooks() -> dict[str, list[Cell]]:
    """The cells of each notebook by its name, with the badge and the cell that installs the package."""
    cells = read_files(HERE / "source")
    notebooks: dict[str, list[Cell]] = {cell.page: [] for cell in cells}
    for name, its in notebooks.items():
        first, *rest = [cell for cell in cells if cell.page == name]
        opened = Cell(name, True, badge(name, f"{HOSTED}/assets/colab-badge.svg"))
        its += [first, opened, Cell(name, False, INSTALL), *rest]
    return notebooks


def run_all(notebooks: dict[str, list[Cell]], timeout: int | None = None) -> dict[str, nbformat.NotebookNode]:
    """Runs all notebooks in one process, one after the other; gives each by its name.

    Raises:
        CellExecutionError: A cell failed.
    """
    whole = run_notebook(make_notebook([cell for its in notebooks.values() for cell in its]), timeout)
    return {name: _part(whole, name) for name in notebooks}


def _part(whole: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The cells of one notebook, counted from 1."""
    part = nbformat.v4.new_notebook(metadata=whole.metadata)
    part.cells = [cell for cell in whole.cells if cell.metadata["page"] == name]
    count = 0
    for number, cell in enumerate(part.cells):
        cell.id = f"cell-{number:03}"
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return part


def make_pages(notebooks: dict[str, nbformat.NotebookNode]) -> dict[str, bytes]:
    """The pages of notebooks that were run, and their pictures, by file name."""
    files: dict[str, bytes] = {}
    titles: dict[str, str] = {}
    for name, notebook in notebooks.items():
        texts, pictures = write_parts(notebook)
        parts = [part for part in texts[name] if INSTALL not in part]
        parts[1] = badge(name, BADGE) + f" or [take the notebook]({name}.ipynb)"
        titles[name] = title(parts)
        files |= pictures | {f"{name}.md": ("\n\n".join([*parts, "---", "[All notebooks](README.md)"]) + "\n").encode()}
    files["README.md"] = _contents(titles).encode()
    return files


def _contents(titles: dict[str, str]) -> str:
    return "\n".join(
        [
            "# Notebooks",
            "",
            "Short ones, to change and run again. As they stand they need no network and no GPU, and take seconds.",
            "",
            *(f"- [{title}]({name}.md)" for name, title in titles.items()),
            "",
            "The source is [one file per notebook](source); `make notebooks` runs them and writes notebooks and pages.",
            "",
        ]
    )


def main() -> None:
    """Runs the notebooks and writes everything."""
    notebooks = run_all(read_notebooks())
    for old in (*HERE.glob("*.md"), *HERE.glob("*.ipynb"), *HERE.glob("pictures/*.png")):
        old.unlink()
    for name, notebook in notebooks.items():
        nbformat.write(notebook, HERE / f"{name}.ipynb")
    for name, content in make_pages(notebooks).items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
