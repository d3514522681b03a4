"""Evaluation of a saved model for every task: the function behind `vithub evaluate`."""

from pathlib import Path
from typing import Any

from rich.table import Table

from ..data.argument_names import argument, renamed, stated
from ..data.table_identity import rows_identity
from ..data.text.json_text import json_text
from ..hub.checkpoints import locate
from ..hub.exported.forms import locate_model
from ..hub.folders import new_folder
from ..hub.model_identity import model_identity
from ..hub.ready_model import Backend
from .recipe.run_files import METRICS
from .runtime.bad_image_errors import way_past_bad_images
from .runtime.loading_processes import named_deaths
from .runtime.processes import new_accelerator
from .runtime.progress import QuietReporter, Reporter
from .tasks.evaluation import default_workers, evaluate_split
from .tasks.partial_counts import partial_counts
from .tasks.registry import task_of
from .tasks.tiling import Tiles, tile_options, tiling_of


@renamed(out="output")
@named_deaths(lambda: f" ({stated(workers=0)})")
def evaluate(
    folder: str | Path,
    data: Any = None,
    split: str | None = None,
    *,
    output: str | Path | None = None,
    label_column: str | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    on_bad_image: str = "error",
    resume: bool = False,
    backend: Backend = None,
    tiles: Tiles = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    tiles_only: bool = False,
    mirrored: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Computes metrics of a classifier or detector on labelled images, preprocessed as `pipeline` does.

    Args:
        folder: Folder of a run or of any saved classifier or detector, or a Hub id.
        data: Data set in any form that `finetune` takes; None takes the run's training data with the same splits.
        split: "train", "validation" or "test"; None takes the split that the run reported, else "test" if it exists.
        output: New folder for `metrics.json` and plots; None writes nothing.
        label_column: Name of the column of labels, or of objects for a detector; None finds it.
        batch_size: Images per batch; limited to 8 for a detector.
        workers: Number of loading processes; None derives it from the number of cores.
        on_bad_image: "error", or "skip" to leave out and list the images that cannot be decoded.
        resume: Whether to continue an evaluation into `output` that was killed; its partial counts lie beside that
            folder.
        backend: Exported form to run: "onnx", "onnx-int8", "openvino", ...; "torch" for the weights; None takes the
            weights if they are there, else the only form. A model that `optimize` made of the folder runs in their
            place.
        tiles: Size of the tiles in which a detector looks at pictures that are larger: a side in pixels, "HEIGHTxWIDTH"
            or (height, width); None looks at all as a whole.
        tile_overlap: Least overlap of neighbouring tiles, as a share of a tile's side, in [0, 1); None means 0.2.
        tile_merge: How boxes of several tiles become one: "nmm-ios", "nmm-iou", "nms-ios" or "nms-iou" (see
            `merge_views`); None means "nmm-ios".
        tiles_only: Whether to leave out the picture as a whole, which is otherwise looked at too.
        mirrored: Whether a classifier answers by the mean probabilities of an image and its mirror image, in twice the
            time.
        reporter: Receives the progress; None writes to the log.

    Returns:
        Dictionary with `model`, `data`, `split`, `images`, `bad_images` (images left out), `metrics`, `labels` and
        `per_class`. A classifier adds `confusion`, which covers the data's labels and other labels that the model
        predicted (see `SavedClassifier`); a detector adds `boxes` and `errors` (see `SavedDetector`), and
        `tiles` if it looked at pictures in tiles. `mirrored` is True if mirror images were answered too.

    Raises:
        DataError: The data cannot be used, has a label that the model does not know, or has single labels where the
            model gives several per image, or the reverse.
    """
    if resume and output is None:
        raise ValueError(f"{argument('resume')} needs {argument('output')}, beside which the counts so far are kept")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"{argument('on_bad_image')} must be 'error' or 'skip', got {on_bad_image!r}")
    tiling = tiling_of(tiles, tile_overlap, tile_merge, tiles_only)
    accelerator = new_accelerator()
    reporter = (reporter or QuietReporter()) if accelerator.is_main_process else QuietReporter()
    path = locate_model(folder, backend)
    task = task_of(path)
    tiled = tile_options(task, tiling)
    if mirrored:
        backend = task.open_mirrored(path, backend)
    with way_past_bad_images(on_bad_image, task.skipping(own_data=data is None)):
        skip_bad = on_bad_image == "skip"
        saved = task.open_evaluation(path, str(folder), data, split, label_column, skip_bad, backend, **tiled)
        evaluator = saved.evaluator(accelerator.device)
        about: dict[str, Any] = {"model": str(folder), "data": saved.data, "split": saved.split}
        if mirrored:
            about["mirrored"] = True
        size = len(saved.rows)
        partial = None
        if output is not None:
            made_from = {**model_identity(path, backend), "data": rows_identity(saved.rows, range(size))}
            largest = min(batch_size, evaluator.largest_batch or batch_size)
            counted = {**about, "images": size, "batch_size": largest}
            if tiling is not None:
                counted["tiles"] = tiling.to_dict()
            partial = partial_counts(Path(output), counted, made_from, accelerator, resume)
        evaluation = evaluate_split(
            evaluator, batch_size=batch_size, workers=default_workers() if workers is None else workers,
            accelerator=accelerator, reporter=reporter, partial=partial,
            max_bad_share=1 - 1 / size if skip_bad else 0.0,
        )  # fmt: skip
    bad = evaluation.bad_images
    result = {**about, "images": size - len(bad), "bad_images": bad, **saved.results(evaluation)}
    if output is not None and accelerator.is_main_process:
        with new_folder(output) as staging:
            (staging / METRICS).write_text(json_text(result, indent=1) + "\n", encoding="utf-8")
            saved.save_plots(staging, evaluation, result)
    accelerator.wait_for_everyone()
    if partial is not None and accelerator.is_main_process:
        partial.remove()
    return result


def result_table(folder: str | Path, result: dict[str, Any]) -> Table:
    """Formats a result as a table for a terminal.

    Args:
        folder: The `folder` argument of `evaluate`.
        result: The return value of `evaluate`.
    """
    return task_of(locate(folder)).result_table(result)


__all__ = ["evaluate", "result_table"]
