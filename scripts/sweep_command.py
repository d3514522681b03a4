"""Command `vithub sweep`: a run for each combination of some recipe values, or for those that a search proposes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from vithub.scripts.finetune_command import assignments, check_recipe
from vithub.scripts.printing import say


def sweep(
    output: Annotated[str, typer.Option(help="folder of the sweep; each run has a folder in it")],
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=[VALUE,...]", help="recipe field and its values; once for each field  "),
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range", metavar="NAME=[LOW,HIGH]", help="field that --search draws from a range; [LOW,HIGH,log]: of logs"
        ),
    ] = None,
    search: Annotated[
        int | None, typer.Option(min=1, help="runs proposed by Optuna, not all combinations  [default: no search]")
    ] = None,
    search_seed: Annotated[int, typer.Option(min=0, help="of the proposals of --search")] = 0,
    model: Annotated[str | None, typer.Option(help="as for finetune  [default: the recipe's]")] = None,
    data: Annotated[str | None, typer.Option(help="as for finetune  [default: the recipe's]")] = None,
    preset: Annotated[str | None, typer.Option(help="named recipe  [default: by model and data]")] = None,
    recipe: Annotated[str | None, typer.Option(help="recipe file, as for finetune  [default: a preset]")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="recipe field of all runs")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one line of JSON per run")] = False,
) -> None:
    """Trains a run for each combination of a small grid, or those of a search; called again, it goes on."""
    if search is None and not grid:
        raise typer.BadParameter("--grid is missing: name a field and its values, such as training.lr=[1e-4,1e-3]")
    if recipe is not None and preset is not None:
        raise typer.BadParameter("--recipe and --preset are both recipes to begin from; give one")
    wanted, drawn = assignments(grid or [], "--grid"), assignments(ranges or [], "--range")
    values = assignments(set_ or [])
    check_recipe(recipe, preset, values)
    from vithub.data.text.json_text import json_text
    from vithub.training.run_list.text import runs_text
    from vithub.training.runtime.processes import process_state
    from vithub.training.runtime.progress import TerminalReporter
    from vithub.training.sweeping import best_on_validation
    from vithub.training.sweeping import sweep as run

    with TerminalReporter() as reporter:
        entries = run(
            model, data, output, grid=wanted, ranges=drawn, search=search, search_seed=search_seed, recipe=recipe,
            preset=preset, values=values, reporter=reporter,
        )  # fmt: skip
    if not process_state().is_main_process:
        return
    if json_:
        for one in entries:
            typer.echo(json_text(one.to_dict()))
        return
    say(runs_text(entries, Path(output).expanduser()))
    best: Any = best_on_validation(entries)
    if best is not None:
        say(f"best on the validation split: {best[0].folder} with {100 * best[1]:.1f} %")


__all__ = ["sweep"]
