"""`vithub pretrain`: learns a backbone from images without labels and leaves a run's folder."""

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
from vithub.scripts.finetune_command import assignments, check_recipe


def pretrain(
    model: Annotated[
        str | None,
        typer.Option(help="vit-s/16 ... (from scratch), or a folder or Hub id of a ViT to pretrain further"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="a folder of images, or any data set that finetune takes; labels are ignored"),
    ] = None,
    output: Annotated[str | None, typer.Option(help="the run's folder  [default: a new one below runs/]")] = None,
    method: Annotated[
        str | None, typer.Option(help="mae, simmim, dino or features  [default: mae; features with --teacher]")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="file: a run's recipe.yaml, or `preset: NAME` and what differs  [default: the method's]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training images  [default: the recipe's]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="end after so many steps  [default: the recipe's]")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="read the data as a stream, never all of it")] = False,
    batch_size: BatchSize = None,
    lr: Annotated[
        float | None,
        typer.Option(help="peak learning rate  [default: the recipe's, a tenth of it for a pretrained model]"),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="pixels  [default: the model's]")] = None,
    mask_ratio: Annotated[
        float | None, typer.Option(help="part of the patches that is hidden, in (0, 1)  [default: the method's]")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="vision model whose features to learn: a folder or a Hub id  [default: none]")
    ] = None,
    probe: Annotated[
        str | None, typer.Option(help="labelled data on which features are judged after each epoch  [default: none]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of all random choices  [default: the recipe's]")] = None,
    on_bad_image: Annotated[str | None, typer.Option(help="error or skip  [default: the recipe's]")] = None,
    on_nonfinite: Annotated[str | None, typer.Option(help="stop or skip  [default: the recipe's]")] = None,
    front_end: Annotated[str, typer.Option(help="whose loop runs: accelerate or trainer")] = "accelerate",
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --output  [default: the last in runs/]")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="with --resume: end now and write what the last checkpoint has")
    ] = False,
    keep_checkpoints: Annotated[
        int | None, typer.Option(help="how many of the last stay; 0: none in the end  [default: the recipe's]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="any recipe field of the list below")
    ] = None,
    dry_run: DryRun = False,
    json_: DryRunJson = False,
) -> None:
    """Pretrains a backbone on images without labels; finetune takes its folder as --model."""
    check_dry_run_options(dry_run, json_, resume)
    if finish and not resume:
        raise typer.BadParameter("--finish ends a run that was begun before; give --resume too")
    if front_end not in ("accelerate", "trainer"):
        raise typer.BadParameter(f"--front-end takes accelerate or trainer, got {front_end!r}")
    if data is None and recipe is None and not resume:
        raise typer.BadParameter("--data is missing: name a folder of images")
    # imported here, as the recipe's fields take half of the time that the list of commands needs
    from vithub.training.recipe.named_fields import named_values
    from vithub.training.recipe.pretraining_settings import METHODS

    if method is not None and method not in METHODS:
        raise typer.BadParameter(f"--method takes {', '.join(METHODS)}, got {method!r}")
    named: dict[str, Any] = {
        "epochs": epochs, "max_steps": max_steps, "streaming": streaming, "batch_size": batch_size_of(batch_size),
        "lr": lr, "image_size": image_size, "seed": seed, "on_bad_image": on_bad_image, "on_nonfinite": on_nonfinite,
        "keep_checkpoints": keep_checkpoints,
    }  # fmt: skip
    values = assignments(set_ or [])
    own = {} if mask_ratio is None else {"pretraining.mask_ratio": mask_ratio}
    check_recipe(recipe, None, named_values(**named) | own | values)
    from vithub.training.pretraining import pretrain as run
    from vithub.training.runtime.progress import TerminalReporter

    with TerminalReporter() as reporter:
        found = run(
            model, data, output, method=method, recipe=recipe, mask_ratio=mask_ratio, teacher=teacher, probe=probe,
            front_end=front_end, resume=resume, finish=finish, values=values, dry_run=dry_run, reporter=reporter,
            **named,
        )  # fmt: skip
    if dry_run:
        print_dry_run(found.metrics, as_json=json_)
