"""Arguments and limits that several commands share."""

from typing import Annotated

import typer

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="a run's folder, or a Hub id")]
Backend = Annotated[
    str | None,
    typer.Option(
        help="exported form to run: onnx, onnx-int8, openvino, ...; torch  [default: the weights, or what is there]"
    ),
]
Mirrored = Annotated[
    bool,
    typer.Option(
        "--mirrored", help="answer by the mean of an image and its mirror image, in twice the time; for classifiers"
    ),
]
MOST_AT_ONCE, MOST_WORKERS = 2**20, 1_024  # same limits as in the recipe
