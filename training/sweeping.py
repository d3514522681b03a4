"""Small grid of trainings, or a search, each training a run of its own: the function behind `vithub sweep`."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.argument_names import argument
from ..data.text.json_text import json_text
from ..data.whole_files import write_whole
from ..hub.folders import TargetError
from .finetuning import finetune
from .loop.step import NonFiniteLossError
from .recipe.effects import check_effects
from .recipe.recipe import Recipe, RecipeError
from .recipe.run_files import METRICS, RECIPE
from .run_choice import resolve_recipe
from .run_list.listing import FINISHED, RunEntry, list_runs
from .run_list.proposals import MOST_TRIALS, Range, Search, import_optuna, validation_figure
from .runtime.processes import process_state
from .runtime.progress import QuietReporter, Reporter

GRID = "sweep.json"
MOST_CELLS = 200
_LONGEST_NAME = 80


def sweep(
    model: str | None = None,
    data: str | None = None,
    output: str | Path = "",
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    ranges: Mapping[str, Sequence[Any]] | None = None,
    search: int | None = None,
    search_seed: int = 0,
    recipe: Recipe | str | Path | None = None,
    preset: str | None = None,
    values: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> list[RunEntry]:
    """Trains a run for each combination of some recipe values, or for those a search proposes, and lists the runs.

    Runs that are finished are not trained again, and one that was broken off goes on, so that a killed sweep is
    continued by the same call. A run whose loss is not finite is left as it is, and the others are trained.

    Args:
        model: Model to train, as for `finetune`.
        data: Data set, as for `finetune`, by name.
        output: Folder of the sweep; each run has a folder in it.
        grid: Values of each varied field by dotted name, such as {"training.lr": [1e-4, 3e-4], "seed": [0, 1]}.
        ranges: With `search`, ranges of further fields by dotted name: [low, high] or [low, high, "log"]; whole numbers
            if both ends are.
        search: Number of runs, whose values Optuna's TPE sampler proposes from the headline figures of the runs before
            on the validation split; None trains every combination. A larger number goes on with the same search.
        search_seed: With `search`, random seed of the proposals.
        recipe: Recipe of all runs, as for `finetune`.
        preset: Name of the recipe to begin from.
        values: Further recipe fields of all runs by dotted name.
        reporter: Receives the progress; None writes to the log.

    Raises:
        RecipeError: A combination is no valid recipe; nothing is trained then.
        MissingOptunaError: Optuna is needed and not installed.
        TargetError: The folder holds another sweep, or files of another kind.
    """
    reporter = reporter or QuietReporter()
    if not str(output):
        raise ValueError(f"{argument('output')} is missing: name the folder of the sweep")
    folder = Path(output).expanduser()
    cells: dict[str, dict[str, Any]] = {}
    searched: Search | None = None
    if search is None:
        if ranges or search_seed:
            unused = "ranges" if ranges else "search_seed"
            raise ValueError(f"{argument(unused)} is for a search; give {argument('search')} too")
        cells = grid_cells(grid or {})
    given = {**(values or {})}
    stated = {"model.source": model, "data.source": data}
    given |= {name: value for name, value in stated.items() if value is not None}
    begun = resolve_recipe(recipe, preset, model, data)
    if search is not None:
        drawn = {name: _range(begun, name, one) for name, one in (ranges or {}).items()}
        searched = Search(search, checked_grid(grid or {}), drawn, search_seed)
        import_optuna()
    for option, varied in (("grid", grid), ("ranges", ranges)):
        if twice := sorted(set(varied or ()) & set(given)):
            raise ValueError(f"{argument(option)} varies {', '.join(twice)}, which is stated for all runs too")
    for cell in cells.values() if searched is None else searched.extremes():
        check_effects(begun.with_values(given | cell), given | cell)
    if process_state().is_main_process:
        fields: dict[str, Any] = {"grid": dict(grid or {})} if searched is None else searched.to_dict()
        _open(folder, {"recipe": begun.with_values(given).model_dump(mode="json"), **fields})
    process_state().wait_for_everyone()
    count = len(cells) if searched is None else searched.trials
    proposed = cells.items() if searched is None else _named(searched, folder)
    for number, (name, cell) in enumerate(proposed, 1):
        if (folder / name / METRICS).is_file():
            reporter.message(f"run {number} of {count}, {name}: finished before")
            continue
        reporter.message(f"run {number} of {count}: {name}")
        try:
            finetune(
                model, data, folder / name, recipe=begun, values={**(values or {}), **cell},
                resume=(folder / name / RECIPE).is_file(), reporter=reporter,
            )  # fmt: skip
        except NonFiniteLossError as error:
            reporter.message(f"{name} has no result: {error}")
    return list_runs(folder)


def _range(recipe: Recipe, name: str, stated: Any) -> Range:
    """Range of a field, of whole numbers if the field takes no others."""
    found = Range.parsed(name, stated)
    if found.whole:
        try:
            recipe.with_values({name: found.low + 0.5})
        except RecipeError:
            return found
    return replace(found, low=float(found.low), high=float(found.high))


def _named(search: Search, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the folder's name and the values of each run of a search."""

    def name(number: int, cell: dict[str, Any]) -> str:
        return _cell_name(number, len(str(MOST_TRIALS)), cell)

    for number, cell in search.cells(lambda *run: validation_figure(folder / name(*run) / METRICS)):
        yield name(number, cell), cell


def grid_cells(grid: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Returns the values of each combination, by the name of its folder.

    Args:
        grid: Values of each varied field by dotted name.

    Raises:
        ValueError: There is nothing to vary, a field has no values or one twice, or there are too many combinations.
    """
    if not grid:
        raise ValueError(f"{argument('grid')} is missing: name a field and its values")
    combinations = list(itertools.product(*checked_grid(grid).values()))
    if len(combinations) > MOST_CELLS:
        raise ValueError(f"{argument('grid')} has {len(combinations)} combinations, more than {MOST_CELLS}")
    width = len(str(len(combinations)))
    cells = {}
    for number, chosen in enumerate(combinations, 1):
        cell = dict(zip(grid, chosen, strict=True))
        cells[_cell_name(number, width, cell)] = cell
    return cells


def checked_grid(grid: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Returns a grid whose fields all have values, and none twice; another one raises a `ValueError`."""
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{argument('grid')}: {name} must have a list of values, got {values!r}")
        if any(value in values[:number] for number, value in enumerate(values)):
            raise ValueError(f"{argument('grid')}: {name} has a value twice, got {list(values)!r}")
    return grid


def _cell_name(number: int, width: int, cell: Mapping[str, Any]) -> str:
    """Name of the folder of a combination: its number, and the values with the last parts of their names."""
    parts = (f"{name.rpartition('.')[2]}-{value}" for name, value in cell.items())
    words = re.sub(r"[^A-Za-z0-9.+-]+", "_", "_".join(parts))
    return f"{number:0{width}}_{words}"[:_LONGEST_NAME].rstrip("._")


def best_on_validation(entries: Sequence[RunEntry]) -> tuple[RunEntry, float] | None:
    """Returns the finished run with the best headline figure on the validation split, and that figure."""
    found = []
    for one in entries:
        if one.value is None or one.state != FINISHED:
            continue
        if (value := validation_figure(one.folder / METRICS)) is not None:
            found.append((one, value))
    return max(found, key=lambda pair: pair[1], default=None)


def _open(folder: Path, content: dict[str, Any]) -> None:
    """Makes the folder of a sweep, or checks that it holds the same one."""
    file = folder / GRID
    text = json_text(content, indent=1) + "\n"
    if file.is_file():
        if file.read_text(encoding="utf-8") != text:
            raise TargetError(f"{folder} holds another sweep, which {file.name} describes; name another folder")
        return
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise TargetError(f"{folder} holds files already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error


__all__ = ["GRID", "best_on_validation", "checked_grid", "grid_cells", "sweep"]
