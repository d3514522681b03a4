"""`--fast` of `predict` and `evaluate`: the fastest way to run the model on this machine, found by measuring."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vithub.scripts.printing import say

if TYPE_CHECKING:
    from vithub.deployment.optimizing.optimized_model import OptimizedModel

Fast = Annotated[
    bool,
    typer.Option("--fast", help="run what is fastest here by measuring, checked against fp32 and kept in FOLDER/fast"),
]
FastSeconds = Annotated[
    float | None, typer.Option(min=1, help="most seconds that measuring for --fast may take  [default: 60]")
]
TokenMerging = Annotated[
    int | None,
    typer.Option(
        min=1, help="with --fast: merge so many tokens in each layer of a ViT, which changes answers  [default: none]"
    ),
]
FastInt8 = Annotated[
    bool,
    typer.Option(
        "--fast-int8",
        help="with --fast: measure int8 too, calibrated and checked on the run's own data, else on the given images",
    ),
]


def check_fast(fast: bool, backend: str | None, **options: Any) -> None:
    """Refuses options that go with --fast alone, or not with it."""
    if not fast:
        if useless := [f"--{name.replace('_', '-')}" for name, value in options.items() if value]:
            raise typer.BadParameter(f"{', '.join(useless)} needs --fast")
        return
    if backend is not None:
        raise typer.BadParameter("--fast chooses what runs the model: leave out --backend")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise typer.BadParameter("--fast measures the whole machine, which several processes share: start one")


def fast_on_images(folder: str, images: list[str], batch_size: int | None, **options: Any) -> "OptimizedModel":
    """Optimized model for files, folders and URLs."""
    from vithub.data.pixels.named_images import find_images

    names = find_images(images)
    local = [name for name in names if "://" not in name]
    return _found(folder, local or None, len(names), batch_size, **options)


def fast_on_data(
    folder: str, data: str | None, split: str | None, batch_size: int | None, **options: Any
) -> "OptimizedModel":
    """Optimized model for a data set; None stands for the run's own."""
    from vithub.deployment.optimizing.data_images import images_of_data
    from vithub.hub.checkpoints import locate

    images, count = images_of_data(locate(folder), data, split)
    return _found(folder, images or None, count, batch_size, **options)


def _found(
    folder: str, images: Any, count: int, batch_size: int | None, seconds: float | None, token_merging: int | None,
    int8: bool,
) -> "OptimizedModel":  # fmt: skip
    from vithub.deployment.optimizing.optimizing import optimize

    model = optimize(
        folder, images=images, seconds=seconds or 60.0, expected_images=count,
        batch_sizes=None if batch_size is None else (batch_size,), token_merging=token_merging or 0, int8=int8,
    )  # fmt: skip
    for line in model.optimization.lines():
        say(line, err=True)  # what is printed to stdout may be JSON
    return model


__all__ = ["Fast", "FastInt8", "FastSeconds", "TokenMerging", "check_fast", "fast_on_data", "fast_on_images"]
