"""`vithub predict`: answers single images, or a whole data set into files."""

import sys
from typing import Annotated, Any

import typer
from vithub.scripts.arguments import MOST_AT_ONCE, MOST_WORKERS, Backend, Folder, Mirrored
from vithub.scripts.bad_images import check_on_bad_image, fail_after_all
from vithub.scripts.fast_option import (
    Fast,
    FastInt8,
    FastSeconds,
    TokenMerging,
    check_fast,
    fast_on_data,
    fast_on_images,
)
from vithub.scripts.printing import say
from vithub.scripts.tile_options import TileMerge, TileOverlap, Tiles, TilesOnly


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
    tiles: Tiles = None,
    tile_overlap: TileOverlap = None,
    tile_merge: TileMerge = None,
    tiles_only: TilesOnly = False,
    mirrored: Mirrored = False,
    backend: Backend = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=MOST_WORKERS, help="loading processes  [default: with --data or --fast by the number of cores]"
        ),
    ] = None,
    fast: Fast = False,
    fast_seconds: FastSeconds = None,
    fast_int8: FastInt8 = False,
    token_merging: TokenMerging = None,
) -> None:
    """Predicts the labels of images, or the boxes in them; writes those of a whole data set to files."""
    if (data is None) == (not images) or (data is not None and output is None):
        given = f"both images and --data {data}" if images and data else f"--data {data} alone" if data else "no images"
        raise typer.BadParameter(f"give images, or --data with --output, got {given} for the model {folder}")
    if data is not None and top is not None:
        raise typer.BadParameter("--top goes with images, not with --data, whose probabilities are all written")
    check_on_bad_image(on_bad_image)
    check_fast(fast, backend, fast_seconds=fast_seconds, fast_int8=fast_int8, token_merging=token_merging)
    if fast and embeddings:
        raise typer.BadParameter("--embeddings are of the weights themselves: leave out --fast")
    views: dict[str, Any] = {
        "tiles": tiles,
        "tile_overlap": tile_overlap,
        "tile_merge": tile_merge,
        "tiles_only": tiles_only,
        "mirrored": mirrored,
    }
    measuring = {"seconds": fast_seconds, "token_merging": token_merging, "int8": fast_int8}
    if data is not None and output is not None:
        from vithub.training.dataset_prediction import predict_dataset
        from vithub.training.runtime.progress import TerminalReporter

        model = fast_on_data(folder, data, split, batch_size, **measuring) if fast else None
        size = batch_size or (32 if model is None else model.batch_size)
        with TerminalReporter() as reporter:
            target = predict_dataset(
                folder, data, output, split=split, embeddings=embeddings, batch_size=size, workers=workers,
                threshold=threshold, on_bad_image=on_bad_image, resume=resume, backend=model or backend,
                reporter=reporter, **views,
            )  # fmt: skip
        say(f"predictions are in {target}")
        return
    of_data = {"--split": split, "--embeddings": embeddings, "--resume": resume}
    if useless := [name for name, value in of_data.items() if value]:
        raise typer.BadParameter(f"{', '.join(useless)} goes with --data alone, not with images")
    chosen: Any = backend
    if fast:
        from vithub.configuration.model_task import DETECTION, model_task
        from vithub.training.tasks.evaluation import default_workers

        chosen = fast_on_images(folder, images or [], batch_size, **measuring)
        workers = default_workers() if workers is None else workers
        if model_task(chosen) != DETECTION:  # a detector gets one image at a time
            batch_size = chosen.batch_size
    _predict_images(
        folder, images or [], json_, on_bad_image, top, batch_size, threshold, output, chosen, workers or 0, views
    )  # fmt: skip


def _predict_images(
    folder: str, images: list[str], json_: bool, on_bad_image: str, top: int | None,
    batch_size: int | None, threshold: float | None,
    output: str | None, backend: Any, workers: int, views: dict[str, Any],
) -> None:  # fmt: skip
    """Predicts every image that can be decoded, and fails at the end if one could not be."""
    from rich.console import Console
    from vithub.data.text.json_text import json_text
    from vithub.training.prediction import bad_images_text, predict_stream, prediction_table

    found = []
    for prediction in predict_stream(
        folder,
        images,
        top=top,
        batch_size=batch_size,
        threshold=threshold,
        output=output,
        on_bad_image="skip",
        backend=backend,
        workers=workers,
        **views,
    ):
        found.append(prediction)
        if json_:
            typer.echo(json_text(prediction))
            sys.stdout.flush()
    if not json_ and any("error" not in prediction for prediction in found):
        Console().print(prediction_table(found))
    if bad := bad_images_text(found):
        fail_after_all(bad, on_bad_image)
