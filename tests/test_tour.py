"""The tour in docs/tour: notebook and pages are what its source gives, and every cell of it runs."""

import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from notebook_checks import check_outputs, load_program, names_from_elsewhere
from patience import LONG, PATIENCE

TOUR = Path(__file__).parents[1] / "docs" / "tour"
PAGES = sorted(TOUR.glob("*.md"))
# The short form of the tour: fewer steps, and less expected of what was learned in them. Everything that is computed in
# two ways is compared as in the long form, which `make tour` and `make test-long` run.
# Pictures are laid out and drawn as in the long form, with a sixteenth of the dots.
_STYLE = "from vithub.interpretability.analysis.plots import PAGE, paper_figure\n"
COARSE = {_STYLE: f"from vithub.interpretability.analysis import plots\n{_STYLE}\nplots.DPI = 75\n"}
FEWER_STEPS = COARSE | {
    "steps=700, keep=(0, 350)": "steps=250, keep=(0, 125)",
    "accuracy(model) > accuracy(untrained) + 0.3": "accuracy(model) > accuracy(untrained) + 0.15",
    "projection.knn_accuracies[first] + 0.2": "projection.knn_accuracies[first] + 0.1",
    "steps=120": "steps=60",
}
# For pages that do not look at the first page's network.
HARDLY_TRAINED = COARSE | {
    "steps=700, keep=(0, 350)": "steps=2, keep=(0, 1)",
    "assert accuracy(model) > accuracy(untrained) + 0.3": "assert 0 <= accuracy(model) <= 1",
    "steps=120": "steps=15",
    "steps=800": "steps=15",
    "rounds=15": "rounds=5",
    "assert gain > 0": "assert -100 < gain < 100",
}
PARTS = {
    "a trained network": (FEWER_STEPS, range(1, 13)),
    "cost, teacher and detector": (HARDLY_TRAINED, (1, 13, 14, 15)),
}


@pytest.fixture(scope="module")
def build():
    return load_program(TOUR / "build.py", "tour_build")


@pytest.fixture(scope="module")
def cells(build):
    return build.read_tour()


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(TOUR / "tour.ipynb", as_version=4)


def test_the_notebook_is_the_source_and_was_run(build, cells, notebook):
    nbformat.validate(notebook)
    fresh = build.make_notebook(cells)
    described = [[(c.id, c.cell_type, c.metadata["page"], c.source) for c in each.cells] for each in (fresh, notebook)]
    assert described[0] == described[1], "run `make tour`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert cell.outputs or "print(" not in cell.source, cell.source
        check_outputs(cell)


def test_the_pages_are_the_notebook(build, notebook):
    files = build.make_pages(notebook)
    there = {file.relative_to(TOUR).as_posix() for file in (*PAGES, *TOUR.glob("pictures/*"))}
    assert there == set(files)
    for name, content in files.items():
        assert (TOUR / name).read_bytes() == content, f"{name}: run `make tour`"


def test_the_pages_are_small_enough_to_be_read_in_a_browser():
    assert sum(file.stat().st_size for file in TOUR.glob("pictures/*")) < 2_000_000
    assert (TOUR / "tour.ipynb").stat().st_size < 2_500_000


def test_each_page_has_a_picture_and_says_what_it_needs(cells):
    pages = {cell.page: [each for each in cells if each.page == cell.page] for cell in cells}
    for page, its in pages.items():
        assert its[0].is_text, page
        assert its[0].source.startswith("# "), page
        assert its[0].source.count("*Needs: ") == 1, page
        assert any("show(" in each.source or "picture(" in each.source for each in its if not each.is_text), page


def test_each_page_needs_the_first_alone(cells):
    """Each name that a page reads is made before on that page, or on the first one."""
    first = cells[0].page
    for page in dict.fromkeys(cell.page for cell in cells):
        code = "\n".join(cell.source for cell in cells if not cell.is_text and cell.page in (first, page))
        assert not names_from_elsewhere(code), page


def test_no_figure_is_typed_into_the_text(cells):
    """What was measured is printed by a cell; the text has the numbers of papers, equations and examples alone."""
    for cell in cells:
        if cell.is_text:
            text = re.sub(r"\[[^]]*\]\([^)]*\)|\$\$?[^$]*\$\$?|`[^`]*`|section \d+(\.\d+)*", "", cell.source)
            typed = re.findall(r"\d+[.,]\d+|\d+ ?%|\d+ (?:seconds|minutes|points|milliseconds)", text)
            assert not typed, (cell.page, typed)


@pytest.mark.parametrize("page", PAGES, ids=lambda file: file.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import torch\n# %%\n", "line 1 of one stands before the first cell"),
        ("# %% [markdwon]\n# text\n", "line 1 of one is no mark of a cell"),
        ("# %% [markdown]\nx = 1\n", "line 2 of one is in a text and must be a comment"),
    ],
)
def test_a_broken_source_is_refused(build, source, message):
    with pytest.raises(ValueError, match=message):
        build.read_page("one", source)


def test_a_cell_that_fails_is_not_written_as_a_page(build):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="no such thing"):
        build.run_notebook(build.make_notebook(build.read_page("one", "# %%\nraise ValueError('no such thing')\n")))


def test_the_parts_of_the_tour_are_all_of_it(cells):
    numbers = {int(cell.page.split("_")[0]) for cell in cells}
    assert set().union(*(part for _, part in PARTS.values())) == numbers
    for changes, part in PARTS.values():
        code = "\n".join(cell.source for cell in cells if not cell.is_text and int(cell.page.split("_")[0]) in part)
        assert all(text in code for text in changes)


@pytest.mark.parametrize("part", PARTS)
def test_every_cell_runs(build, cells, part):
    """In a fresh process, with the assertions of its cells."""
    changes, numbers = PARTS[part]
    chosen = [cell for cell in cells if int(cell.page.split("_")[0]) in numbers]
    for text, other in changes.items() if not LONG else ():
        chosen = [cell if cell.is_text else replace(cell, source=cell.source.replace(text, other)) for cell in chosen]
    notebook = build.run_notebook(build.make_notebook(chosen), timeout=PATIENCE)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            check_outputs(cell)
