"""Subcommands with their options; the package's functions of the same names do the work."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from vithub.scripts.bad_images import check_on_bad_image, fail_after_all
from vithub.scripts.calling import prepared
from vithub.scripts.check_data_command import check_data
from vithub.scripts.command_help import Command, RecipeCommand
from vithub.scripts.compare_command import compare
from vithub.scripts.demo_command import demo
from vithub.scripts.explain_command import explain
from vithub.scripts.printing import say
from vithub.scripts.publish_command import publish
from vithub.training.recipe.named_fields import named_values

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="a run's folder, or a Hub id")]

CONVERSION_TARGETS = ("vithub", "transformers", "timm")
MOST_AT_ONCE, MOST_WORKERS = 2**20, 1_024  # same limits as in the recipe


def register(app: typer.Typer) -> None:
    """Registers every subcommand."""
    app.command(cls=RecipeCommand)(prepared(finetune))
    for command in (evaluate, predict, convert, check_data, compare, publish, demo, explain):
        app.command(cls=Command)(prepared(command))


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
    batch_size: Annotated[int | None, typer.Option(help="images per step  [default: the recipe's]")] = None,
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
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="any recipe field of the list below")
    ] = None,
) -> None:
    """Trains an image classifier or a detector; without options a small DeiT on handwritten digits."""
    if finish and not resume:
        raise typer.BadParameter("--finish ends a run that was begun before; give --resume too")
    if finish and (epochs is not None or max_steps is not None):
        raise typer.BadParameter("--finish ends the run where it is; it takes no --epochs or --max-steps")
    if front_end not in ("accelerate", "trainer"):
        raise typer.BadParameter(f"--front-end takes accelerate or trainer, got {front_end!r}")
    if recipe is not None and preset is not None:
        raise typer.BadParameter("--recipe and --preset are both recipes to begin from; give one")
    named: dict[str, Any] = {
        "epochs": epochs, "max_steps": max_steps, "streaming": streaming, "batch_size": batch_size, "lr": lr,
        "image_size": image_size, "label_column": label_column, "seed": seed, "on_bad_image": on_bad_image,
        "on_nonfinite": on_nonfinite, "lora": lora, "keep_checkpoints": keep_checkpoints,
    }  # fmt: skip
    values = assignments(set_ or [])
    _check_recipe(recipe, preset, named_values(**named) | values)
    from vithub.training.finetuning import finetune as run
    from vithub.training.runtime.progress import TerminalReporter

    with TerminalReporter() as reporter:
        run(
            model, data, output, recipe=recipe, preset=preset, resume=resume, finish=finish, values=values,
            teacher=teacher, front_end=front_end, reporter=reporter, **named,
        )  # fmt: skip


def _check_recipe(recipe: str | None, preset: str | None, values: dict[str, Any]) -> None:
    """Rejects faults in a recipe before the libraries for training are imported."""
    from vithub.training.recipe.presets import preset as named_recipe
    from vithub.training.recipe.presets import read_recipe
    from vithub.training.recipe.recipe import check_values

    check_values(values)
    if recipe is not None or preset is not None:
        begun_from = read_recipe(recipe) if recipe is not None else named_recipe(str(preset))
        begun_from.with_values(values)


def assignments(texts: list[str]) -> dict[str, Any]:
    """Parses NAME=VALUE texts as fields, values as YAML: `training.lr=1e-3`, `augmentation.scale=[0.5, 1]`."""
    import yaml
    from vithub.training.recipe.yaml_text import read_yaml

    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"--set takes NAME=VALUE, got {text!r}")
        try:
            values[name.strip()] = read_yaml(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"--set {name}: {value!r} is no YAML value") from error
    return values


def evaluate(
    folder: Folder,
    data: Annotated[str | None, typer.Option(help="as for finetune  [default: the run's own]")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test  [default: the one reported]")] = None,
    output: Annotated[
        str | None, typer.Option(help="new folder for metrics.json and pictures  [default: none]")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="[default: found]")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="images at once")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=0, max=MOST_WORKERS, help="loading processes  [default: by the number of cores]")
    ] = None,
    on_bad_image: Annotated[
        str, typer.Option(help="error, or skip to measure without images that cannot be decoded")
    ] = "error",
    resume: Annotated[bool, typer.Option("--resume", help="go on with a killed evaluation into --output")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Evaluates a classifier (accuracy, top-5, F1, per class) or a detector (COCO's metrics, kinds of errors)."""
    if resume and output is None:
        raise typer.BadParameter("--resume needs --output")
    check_on_bad_image(on_bad_image)
    from rich.console import Console
    from vithub.data.text.json_text import json_text
    from vithub.training.evaluation import evaluate as run
    from vithub.training.evaluation import result_table
    from vithub.training.runtime.processes import process_state
    from vithub.training.runtime.progress import TerminalReporter

    with TerminalReporter() as reporter:
        result = run(
            folder, data, split, output=output, label_column=label_column, batch_size=batch_size, workers=workers,
            on_bad_image=on_bad_image, resume=resume, reporter=reporter,
        )  # fmt: skip
    if not process_state().is_main_process:
        return
    if json_:
        typer.echo(json_text(result))
    else:
        Console().print(result_table(folder, result))


def predict(
    folder: Folder,
    images: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE...]", help="files, folders or URLs")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="labels per image of a classifier  [default: 5]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=MOST_AT_ONCE, help="images at once  [default: 32]")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="least score of a detector's boxes  [default: 0.5]")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print one line of JSON per image")] = False,
    data: Annotated[
        str | None, typer.Option(help="a data set instead of images, as for finetune  [default: none]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="of --data  [default: test, or the last]")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="folder for Parquet files of the predictions of --data (of a detector also COCO's "
            "predictions.json), or for images with the boxes found in them  [default: none]"
        ),
    ] = None,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="add the features of each image")] = False,
    on_bad_image: Annotated[
        str, typer.Option(help="error: answer the others, then fail; skip: answer the others (see also --data)")
    ] = "error",
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --output")] = False,
) -> None:
    """Predicts the labels of images, or the boxes in them; writes those of a whole data set to files."""
    if (data is None) == (not images) or (data is not None and output is None):
        raise typer.BadParameter("give images, or --data with --output")
    if data is not None and top is not None:
        raise typer.BadParameter("--top goes with images, not with --data, whose probabilities are all written")
    check_on_bad_image(on_bad_image)
    if data is not None and output is not None:
        from vithub.training.dataset_prediction import predict_dataset
        from vithub.training.runtime.progress import TerminalReporter

        with TerminalReporter() as reporter:
            target = predict_dataset(
                folder, data, output, split=split, embeddings=embeddings, batch_size=batch_size or 32,
                threshold=0.5 if threshold is None else threshold,
                on_bad_image=on_bad_image, resume=resume, reporter=reporter,
            )  # fmt: skip
        say(f"predictions are in {target}")
        return
    of_data = {"--split": split, "--embeddings": embeddings, "--resume": resume}
    if useless := [name for name, value in of_data.items() if value]:
        raise typer.BadParameter(f"{', '.join(useless)} goes with --data alone, not with images")
    _predict_images(folder, images or [], json_, on_bad_image, top, batch_size, threshold, output)


def _predict_images(
    folder: str, images: list[str], json_: bool, on_bad_image: str, top: int | None,
    batch_size: int | None, threshold: float | None,
    output: str | None,
) -> None:  # fmt: skip
    """Predicts every image that can be decoded, and fails at the end if one could not be."""
    from rich.console import Console
    from vithub.data.text.json_text import json_text
    from vithub.training.prediction import bad_images_text, predict_stream, prediction_table

    found = []
    for prediction in predict_stream(
        folder, images, top=top, batch_size=batch_size, threshold=threshold, output=output, on_bad_image="skip"
    ):
        found.append(prediction)
        if json_:
            typer.echo(json_text(prediction))
            sys.stdout.flush()
    if not json_ and any("error" not in prediction for prediction in found):
        Console().print(prediction_table(found))
    if bad := bad_images_text(found):
        fail_after_all(bad, on_bad_image)


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a folder, a file of weights or a Hub id")],
    target_dir: Annotated[Path, typer.Argument(metavar="FOLDER", help="to write; must not exist, or be empty")],
    to: Annotated[str, typer.Option(help="vithub, transformers or timm")] = "vithub",
    image_size: Annotated[int | None, typer.Option(help="pixels  [default: the checkpoint's]")] = None,
    patch_size: Annotated[int | None, typer.Option(help="pixels  [default: the checkpoint's]")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="backbone, image-classification or masked-image-modeling  [default: the checkpoint's]"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of a Hub id  [default: main]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what the folder holds")] = False,
    json_: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """Converts a checkpoint of transformers, timm or DeiT's authors, or one of ours to transformers or timm."""
    if to not in CONVERSION_TARGETS:
        raise typer.BadParameter(f"--to takes one of {', '.join(CONVERSION_TARGETS)}, got {to!r}")
    from vithub.data.text.json_text import json_text
    from vithub.hub.conversion.convert import convert as run

    report = run(
        source, target_dir, to, task=task, image_size=image_size, patch_size=patch_size, revision=revision,
        overwrite=overwrite,
    )  # fmt: skip
    if json_:
        typer.echo(json_text(report.to_dict()))
        return
    say(f"{report.architecture}: {report.tensors} tensors, {report.parameters:,} values, into {target_dir}")
    if report.max_difference is None:
        typer.echo("no outputs were compared: no other library has computed this model with this head")
    else:
        say(f"largest difference from the source, fp32, {len(report.differences)} comparisons: "
                   f"{report.max_difference:.2e}")  # fmt: skip
    for note in report.notes:
        say(f"note: {note}")


__all__ = ["assignments", "register"]
