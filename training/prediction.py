"""Predictions for new images for every task: the function behind `vithub predict`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table
from rich.text import Text

from ..data.argument_names import argument, renamed
from ..data.images import BadImageError
from ..data.pixels.named_images import find_images, read_image
from ..data.sources import DataError
from ..data.text.terminal_text import visible
from ..hub.exported.forms import locate_model
from ..hub.ready_model import Backend
from .loading_ahead import loaded_ahead
from .tasks.registry import task_of
from .tasks.tiling import Tiles, tile_options, tiling_of


@renamed(out="output")
def predict(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    output: str | Path | None = None,
    on_bad_image: str = "error",
    backend: Backend = None,
    workers: int = 0,
    tiles: Tiles = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    tiles_only: bool = False,
    mirrored: bool = False,
) -> list[dict[str, Any]]:
    """Predicts the most likely labels of images, or the boxes that a detector finds, in order, as `pipeline` does.

    Args:
        folder: Folder of a run or of any saved classifier or detector, or a Hub id.
        images: File, folder (searched for images) or URL, or a sequence of them.
        top: Number of labels per image for a classifier; None means 5.
        batch_size: Images per batch for a classifier; None means 32. A detector processes one image at a time.
        threshold: Lowest score of a detector's box, in [0, 1]; None means 0.5.
        output: New folder for a detector's images with drawn boxes, and for `annotations.json` in COCO's format with
            scores.
        on_bad_image: "error", or "skip" to answer the other images; a bad image then has an `error` and no predictions.
        backend: Exported form to run: "onnx", "onnx-int8", "openvino", ...; "torch" for the weights; None takes the
            weights if they are there, else the only form. A model that `optimize` made of the folder runs in their
            place.
        workers: Number of processes that decode images, and for a classifier preprocess them, ahead of the model; 0
            does so in this process.
        tiles: Size of the tiles in which a detector looks at pictures that are larger: a side in pixels, "HEIGHTxWIDTH"
            or (height, width); None looks at all as a whole.
        tile_overlap: Least overlap of neighbouring tiles, as a share of a tile's side, in [0, 1); None means 0.2.
        tile_merge: How boxes of several tiles become one: "nmm-ios", "nmm-iou", "nms-ios" or "nms-iou" (see
            `merge_views`); None means "nmm-ios".
        tiles_only: Whether to leave out the picture as a whole, which is otherwise looked at too.
        mirrored: Whether a classifier answers by the mean probabilities of an image and its mirror image, in twice the
            time.

    Returns:
        A dictionary per image with `image` (its name) and `predictions`: a list of `label` and `score` (0 to 1), the
        most likely first; for a detector also `box` as (left, top, right, bottom) in pixels, within the image.
        That of a detector's image has the method `to_supervision`; see `BoxPrediction`.

    Raises:
        DataError: A file or folder does not exist or holds no image.
        BadImageError: An image cannot be decoded.
        CheckpointError: The model cannot be loaded completely, or its scores are not finite.
        ValueError: An option belongs to the other kind of model.
    """
    found = predict_stream(
        folder, images, top=top, batch_size=batch_size, threshold=threshold, output=output, on_bad_image=on_bad_image,
        backend=backend, workers=workers, tiles=tiles, tile_overlap=tile_overlap, tile_merge=tile_merge,
        tiles_only=tiles_only, mirrored=mirrored,
    )  # fmt: skip
    return list(found)


@renamed(out="output")
def predict_stream(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    output: str | Path | None = None,
    on_bad_image: str = "error",
    backend: Backend = None,
    workers: int = 0,
    tiles: Tiles = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    tiles_only: bool = False,
    mirrored: bool = False,
) -> Iterator[dict[str, Any]]:
    """Predicts images one after the other, for more images than memory can hold predictions of.

    Differs from `predict` in its return value: an iterator that reads the next batch of images on demand. Wrong
    arguments, missing files and a model that cannot be loaded raise errors in the call itself.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"{argument('on_bad_image')} must be 'error' or 'skip', got {on_bad_image!r}")
    for name, value in {"top": top, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise ValueError(f"{argument(name)} must be at least 1, got {value}")
    if workers < 0:
        raise ValueError(f"{argument('workers')} must be at least 0, got {workers}")
    tiling = tiling_of(tiles, tile_overlap, tile_merge, tiles_only)
    names = find_images([images] if isinstance(images, str | Path) else images)
    if not names:
        raise DataError("there are no images: name files, folders or URLs")
    path, skip_bad = locate_model(folder, backend), on_bad_image == "skip"
    task = task_of(path)
    tiled = tile_options(task, tiling)
    if mirrored:
        backend = task.open_mirrored(path, backend)
    model = task.open_images(
        path, top=top, batch_size=batch_size, threshold=threshold, output=output, backend=backend,
        **tiled,
    )  # fmt: skip
    if not workers:
        return model.predictions((name, _opened(name, skip_bad)) for name in names)
    prepare = getattr(model, "preparation", None)
    return model.predictions(_raised(loaded_ahead(names, read_image, prepare, workers), skip_bad))


def _raised(loaded: Iterator[tuple[str, Any]], skip_bad: bool) -> Iterator[tuple[str, Any]]:
    """Yields names and images; unless they are skipped, raises the error of a bad image in its place."""
    for name, content in loaded:
        if isinstance(content, BadImageError) and not skip_bad:
            raise content
        yield name, content


def _opened(name: str, skip_bad: bool) -> Image.Image | BadImageError:
    """Reads an image; with `skip_bad`, returns the error in place of a bad image."""
    try:
        return read_image(name)
    except BadImageError as error:
        if not skip_bad:
            raise
        return error


def prediction_table(predictions: list[dict[str, Any]]) -> Table:
    """Formats predictions as a table for a terminal."""
    boxes = any("box" in entry for prediction in predictions for entry in prediction["predictions"])
    columns = ["score", "box (left, top, right, bottom)"] if boxes else ["probability"]
    table = Table("image", "label", *columns)
    for prediction in predictions:
        if "error" in prediction:
            table.add_row(
                Text(visible(prediction["image"])), Text("could not be decoded", style="red"), end_section=True
            )
        for rank, entry in enumerate(prediction["predictions"]):
            name = prediction["image"] if rank == 0 else ""
            last = entry is prediction["predictions"][-1]
            place = [", ".join(f"{side:.0f}" for side in entry["box"])] if boxes else []
            table.add_row(
                Text(visible(name)), Text(visible(entry["label"])), f"{entry['score']:.1%}", *place, end_section=last
            )
    return table


def bad_images_text(predictions: Sequence[dict[str, Any]]) -> str | None:
    """Returns one line that lists the images that could not be decoded, with reasons; None if there are none."""
    wrong = [str(prediction["error"]) for prediction in predictions if "error" in prediction]
    if not wrong:
        return None
    return f"{len(wrong)} of {len(predictions)} images could not be decoded: {'; '.join(wrong)}"


__all__ = ["bad_images_text", "predict", "predict_stream", "prediction_table"]
