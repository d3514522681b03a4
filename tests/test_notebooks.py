"""The short notebooks in docs/notebooks: they and their pages are what their source gives, and every cell runs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from notebook_checks import check_outputs, load_program, names_from_elsewhere
from patience import LONG, PATIENCE

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
# The short form, in which hardly anything is learned; `make notebooks` and `make test-long` run the long one.
FEWER_STEPS = {
    "epochs=20": "epochs=1", '"epochs": 20': '"epochs": 1', "epochs=6": "epochs=1", "epochs=50": "epochs=1",
    "# In a hosted": "from vithub.interpretability.analysis import plots\nplots.DPI = 30\n# In a hosted",
}  # fmt: skip


@pytest.fixture(scope="module")
def build():
    return load_program(FOLDER / "build.py", "notebooks_build")


@pytest.fixture(scope="module")
def sources(build):
    return build.read_notebooks()


@pytest.fixture(scope="module")
def notebooks(sources):
    return {name: nbformat.read(FOLDER / f"{name}.ipynb", as_version=4) for name in sources}


def test_each_notebook_is_its_source_and_was_run(build, sources, notebooks):
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == set(sources)
    for name, notebook in notebooks.items():
        nbformat.validate(notebook)
        fresh = build.make_notebook(sources[name])
        described = [
            [(c.id, c.cell_type, c.metadata["page"], c.source) for c in each.cells] for each in (fresh, notebook)
        ]
        assert described[0] == described[1], "run `make notebooks`"
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        for cell in code:
            assert cell.outputs or "print(" not in cell.source, cell.source
            check_outputs(cell)


def test_the_pages_are_the_notebooks(build, notebooks):
    files = build.make_pages(notebooks)
    there = {file.relative_to(FOLDER).as_posix() for file in (*FOLDER.glob("*.md"), *FOLDER.glob("pictures/*.png"))}
    assert there == set(files)
    for name, content in files.items():
        assert (FOLDER / name).read_bytes() == content, f"{name}: run `make notebooks`"


def test_what_is_committed_is_small(sources):
    assert all((FOLDER / f"{name}.ipynb").stat().st_size < 250_000 for name in sources)


def test_each_notebook_needs_itself_alone(sources):
    for name, cells in sources.items():
        code = "\n".join(cell.source for cell in cells if not cell.is_text)
        assert names_from_elsewhere(code) == {"get_ipython"}, name


def test_badges_and_the_job_name_the_one_address(build, notebooks):
    for name, notebook in notebooks.items():
        text = json.dumps([cell.source for cell in notebook.cells])
        opened = f"https://colab.research.google.com/github/{build.REPOSITORY}/blob/main/docs/notebooks/{name}.ipynb"
        assert opened in text
        assert set(re.findall(r"github\.com/([\w.-]+/[\w.-]+)", text)) == {build.REPOSITORY}
    job = (ROOT / "examples/finetune_job.py").read_text("utf-8")
    assert re.findall(r'git = "https://github\.com/([^"]+)"', job) == [build.REPOSITORY]


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda file: file.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_cell_runs(build, sources):
    """In one fresh process; that they need nothing of each other is tested above."""
    code = "\n".join(cell.source for cells in sources.values() for cell in cells)
    assert all(text in code for text in FEWER_STEPS)
    for name, cells in sources.items() if not LONG else ():
        for text, other in FEWER_STEPS.items():
            cells = [replace(cell, source=cell.source.replace(text, other)) for cell in cells]
        sources = sources | {name: cells}
    for notebook in build.run_all(sources, timeout=PATIENCE).values():
        for cell in notebook.cells:
            if cell.cell_type == "code":
                check_outputs(cell)
