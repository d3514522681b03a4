"""`vithub evaluate`: measures a saved model on labelled data."""

from typing import Annotated

import typer
from vithub.scripts.arguments import MOST_AT_ONCE, MOST_WORKERS, Backend, Folder, Mirrored
from vithub.scripts.bad_images import check_on_bad_image
from vithub.scripts.fast_option import Fast, FastInt8, FastSeconds, TokenMerging, check_fast, fast_on_data
from vithub.scripts.tile_options import TileMerge, TileOverlap, Tiles, TilesOnly


def evaluate(
    folder: Folder,
    data: Annotated[str | None, typer.Option(help="as for finetune  [default: the run's own]")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test  [default: the one reported]")] = None,
    output: Annotated[
        str | None, typer.Option(help="new folder for metrics.json and pictures  [default: none]")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="[default: found]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=MOST_AT_ONCE, help="images at once  [default: 64]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=MOST_WORKERS, help="loading processes  [default: by the number of cores]")
    ] = None,
    on_bad_image: Annotated[
        str, typer.Option(help="error, or skip to measure without images that cannot be decoded")
    ] = "error",
    resume: Annotated[bool, typer.Option("--resume", help="go on with a killed evaluation into --output")] = False,
    tiles: Tiles = None,
    tile_overlap: TileOverlap = None,
    tile_merge: TileMerge = None,
    tiles_only: TilesOnly = False,
    mirrored: Mirrored = False,
    backend: Backend = None,
    fast: Fast = False,
    fast_seconds: FastSeconds = None,
    fast_int8: FastInt8 = False,
    token_merging: TokenMerging = None,
    json_: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Evaluates a classifier (accuracy, top-5, F1, per class) or a detector (COCO's metrics, kinds of errors)."""
    if resume and output is None:
        raise typer.BadParameter("--resume needs --output")
    check_on_bad_image(on_bad_image)
    check_fast(fast, backend, fast_seconds=fast_seconds, fast_int8=fast_int8, token_merging=token_merging)
    from rich.console import Console
    from vithub.data.text.json_text import json_text
    from vithub.training.evaluation import evaluate as run
    from vithub.training.evaluation import result_table
    from vithub.training.runtime.processes import process_state
    from vithub.training.runtime.progress import TerminalReporter

    model = None
    if fast:
        model = fast_on_data(
            folder, data, split, batch_size, seconds=fast_seconds, token_merging=token_merging, int8=fast_int8
        )
    size = batch_size or (64 if model is None else model.batch_size)
    with TerminalReporter() as reporter:
        result = run(
            folder, data, split, output=output, label_column=label_column, batch_size=size, workers=workers,
            on_bad_image=on_bad_image, resume=resume, backend=model or backend, tiles=tiles, tile_overlap=tile_overlap,
            tile_merge=tile_merge, tiles_only=tiles_only, mirrored=mirrored, reporter=reporter,
        )  # fmt: skip
    if not process_state().is_main_process:
        return
    if json_:
        typer.echo(json_text(result))
    else:
        Console().print(result_table(folder, result))
