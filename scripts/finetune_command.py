"""`vithub finetune`: trains by a recipe and leaves a run's folder."""

from typing import Annotated, Any

import typer
from vithub.scripts.dry_run_option import (
    BatchSize,
    DryRun,
    DryRunJson,
    batch_size_of,
    check_dry_run_options,
    print_dry_run,
)


def finetune(
    model: Annotated[
        str | None,
        typer.Option(help="deit-s, vit-b/32 ... (from scratch), a folder or a Hub id  [default: the recipe's]"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="'digits', a folder, a .csv or .parquet file, or a Hub id  [default: the recipe's]"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="the run's folder  [default: a new one below runs/]")] = None,
    preset: Annotated[str | None, typer.Option(help="named recipe  [default: by model and data]")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="file: a run's recipe.yaml, or `preset: NAME` and what differs  [default: a preset]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training images  [default: the recipe's]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="end after so many steps  [default: the recipe's]")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="read the data as a stream, never all of it")] = False,
    batch_size: BatchSize = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate  [default: the recipe's]")] = None,
    image_size: Annotated[int | None, typer.Option(help="pixels  [default: the model's]")] = None,
    label_column: Annotated[str | None, typer.Option(help="[default: found]")] = None,
    seed: Annotated[int | None, typer.Option(help="of all random choices  [default: the recipe's]")] = None,
    on_bad_image: Annotated[str | None, typer.Option(help="error or skip  [default: the recipe's]")] = None,
    on_nonfinite: Annotated[str | None, typer.Option(help="stop or skip  [default: the recipe's]")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="classifier to learn from: a folder or a Hub id  [default: none]")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="low-rank adapters (rank 8) instead of all weights")] = False,
    front_end: Annotated[str, typer.Option(help="whose loop runs: accelerate or trainer")] = "accelerate",
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --output  [default: the last in runs/]")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="with --resume: end now, evaluate and write what the last checkpoint has")
    ] = False,
    keep_checkpoints: Annotated[
        int | None, typer.Option(help="how many of the last stay; 0: none in the end  [default: the recipe's]")
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="balanced, sqrt, or a file of weights by label  [default: the recipe's]")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="shuffled, or balanced: each class equally often  [default: the recipe's]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="any recipe field of the list below")
    ] = None,
    dry_run: DryRun = False,
    json_: DryRunJson = False,
) -> None:
    """Trains an image classifier or a detector; without options a small DeiT on handwritten digits."""
    check_dry_run_options(dry_run, json_, resume)
    if finish and not resume:
        raise typer.BadParameter("--finish ends a run that was begun before; give --resume too")
    if finish and (epochs is not None or max_steps is not None):
        raise typer.BadParameter("--finish ends the run where it is; it takes no --epochs or --max-steps")
    if front_end not in ("accelerate", "trainer"):
        raise typer.BadParameter(f"--front-end takes accelerate or trainer, got {front_end!r}")
    if recipe is not None and preset is not None:
        raise typer.BadParameter("--recipe and --preset are both recipes to begin from; give one")
    # imported here, as the recipe's fields take half of the time that the list of commands needs
    from vithub.training.recipe.class_weights import class_weights_from
    from vithub.training.recipe.named_fields import named_values

    named: dict[str, Any] = {
        "epochs": epochs, "max_steps": max_steps, "streaming": streaming, "batch_size": batch_size_of(batch_size),
        "lr": lr, "image_size": image_size, "label_column": label_column, "seed": seed, "on_bad_image": on_bad_image,
        "on_nonfinite": on_nonfinite, "lora": lora, "keep_checkpoints": keep_checkpoints, "sampler": sampler,
        "class_weights": class_weights_from(class_weights),
    }  # fmt: skip
    values = assignments(set_ or [])
    check_recipe(recipe, preset, named_values(**named) | values)
    from vithub.training.finetuning import finetune as run
    from vithub.training.runtime.progress import TerminalReporter

    with TerminalReporter() as reporter:
        found = run(
            model, data, output, recipe=recipe, preset=preset, resume=resume, finish=finish, values=values,
            teacher=teacher, front_end=front_end, dry_run=dry_run, reporter=reporter, **named,
        )  # fmt: skip
    if dry_run:
        print_dry_run(found.metrics, as_json=json_)


def check_recipe(recipe: str | None, preset: str | None, values: dict[str, Any]) -> None:
    """Rejects faults in a recipe before the libraries for training are imported."""
    from vithub.training.recipe.presets import preset as named_recipe
    from vithub.training.recipe.presets import read_recipe
    from vithub.training.recipe.recipe import check_values

    check_values(values)
    if recipe is not None or preset is not None:
        begun_from = read_recipe(recipe) if recipe is not None else named_recipe(str(preset))
        begun_from.with_values(values)


def assignments(texts: list[str], option: str = "--set") -> dict[str, Any]:
    """Parses NAME=VALUE texts as fields, values as YAML: `training.lr=1e-3`, `augmentation.scale=[0.5, 1]`.

    Args:
        texts: Texts that were given.
        option: Option that they were given with, for messages.
    """
    import yaml
    from vithub.training.recipe.yaml_text import read_yaml

    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{option} takes NAME=VALUE, got {text!r}")
        try:
            values[name.strip()] = read_yaml(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{option} {name}: {value!r} is no YAML value") from error
        found = values[name.strip()]
        if isinstance(found, dict) and any(":" in str(key) and found[key] is None for key in found):
            raise typer.BadParameter(f"{option} {name}: a space must follow each colon, as in {{a: 1}}, got {value!r}")
    return values
