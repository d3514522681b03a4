"""Makes the tour: runs the files in `source` and writes the notebook and the pages beside them.

    python docs/tour/build.py

Each file is a page, in the percent format of `notebook_cells.py`. They run in one process, in the order of their names.
"""

import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from notebook_cells import (  # noqa: E402
    Cell,
    make_notebook,
    read_files,
    read_page,
    run_notebook,
    title,
    write_parts,
)

__all__ = ["main", "make_notebook", "make_pages", "read_page", "read_tour", "run_notebook"]


def read_tour() -> list[Cell]:
    """The cells of all pages, in their order."""
    return read_files(HERE / "source")


def make_pages(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """The pages of a notebook that was run, and their pictures, by file name."""
    texts, files = write_parts(notebook)
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
