"""Predictions for a whole data set as Parquet files, shared among processes and resumable after a kill."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..data.argument_names import argument, renamed, stated
from ..data.splits import check_split
from ..data.table_identity import rows_identity
from ..data.text.json_text import json_text
from ..data.whole_files import write_whole
from ..hub.exported.forms import locate_model
from ..hub.folders import TargetError, write_errors
from ..hub.model_identity import model_identity
from ..hub.ready_model import Backend
from .prediction_parts import what_is_wrong, write_part
from .run_lock import LOCK, RunLock
from .runtime.bad_image_errors import way_past_bad_images
from .runtime.loading_processes import named_deaths
from .runtime.processes import process_state
from .runtime.progress import QuietReporter, Reporter
from .tasks.evaluation import default_workers
from .tasks.registry import task_of
from .tasks.tiling import Tiles, tile_options, tiling_of

ABOUT = "about.json"
logger = logging.getLogger("vithub")


@renamed(out="output")
@named_deaths(lambda: f"; {stated(resume=True)} goes on")
def predict_dataset(
    folder: str | Path,
    data: Any,
    output: str | Path,
    *,
    split: str | None = None,
    embeddings: bool = False,
    threshold: float | None = None,
    rows_per_file: int = 1024,
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
) -> Path:
    """Writes predictions as `part-000000.parquet` and so on: `rows_per_file` images each, in the order of the data set.

    Each file appears whole or not at all, so files that exist when a run is killed are not computed again. The metadata
    of a file holds hashes of model, image processor and data; on resuming, a file that cannot be read or that was made
    from another model or data is computed again, with a warning. Columns are those of `LabelPredictor` for a classifier
    and those of `BoxPredictor` for a detector, which adds `predictions.json` in COCO's results format. `about.json`
    holds the labels.

    Args:
        folder: Folder of a run or of any saved classifier or detector, or a Hub id.
        data: Data set in any form that `finetune` takes; labels and boxes are not needed.
        output: New folder; with `resume`, the folder of the same prediction.
        split: Name of the split; None takes "test" if it exists, else the last split.
        embeddings: Whether to add the column `embedding`; for classifiers only.
        threshold: Lowest score of a reported box, in [0, 1]; None means 0.5. For detectors only.
        rows_per_file: Number of images per file.
        batch_size: Images per batch; limited to 8 for a detector.
        workers: Number of loading processes; None derives it from the number of cores.
        on_bad_image: "error", or "skip" to write null predictions for images that cannot be decoded.
        resume: Whether to continue an earlier prediction in `output`.
        backend: Exported form to run in place of the weights, such as "onnx", or a model that `optimize` made of the
            folder; None takes what is there.
        tiles: Size of the tiles in which a detector looks at pictures that are larger: a side in pixels, "HEIGHTxWIDTH"
            or (height, width); None looks at all as a whole.
        tile_overlap: Least overlap of neighbouring tiles, as a share of a tile's side, in [0, 1); None means 0.2.
        tile_merge: How boxes of several tiles become one: "nmm-ios", "nmm-iou", "nms-ios" or "nms-iou" (see
            `merge_views`); None means "nmm-ios".
        tiles_only: Whether to leave out the picture as a whole, which is otherwise looked at too.
        mirrored: Whether a classifier answers by the mean probabilities of an image and its mirror image, in twice the
            time.
        reporter: Receives the progress; None writes to the log.

    Raises:
        TargetError: The folder holds other files or another prediction, cannot be written, or another process writes
            it.
        BadImageError: An image cannot be decoded.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"{argument('on_bad_image')} must be 'error' or 'skip', got {on_bad_image!r}")
    tiling = tiling_of(tiles, tile_overlap, tile_merge, tiles_only)
    state = process_state()
    reporter = (reporter or QuietReporter()) if state.is_main_process else QuietReporter()
    target = Path(output).expanduser()
    path, skip_bad = locate_model(folder, backend), on_bad_image == "skip"
    task = task_of(path)
    tiled = tile_options(task, tiling)
    if mirrored:
        backend = task.open_mirrored(path, backend)
    predictor = task.open_dataset(
        path, data, embeddings=embeddings, threshold=threshold, skip_bad=skip_bad, backend=backend,
        **tiled,
    )  # fmt: skip
    tables = predictor.splits
    split = split or ("test" if "test" in tables else list(tables)[-1])
    check_split(split, tables, predictor.data)
    about = {
        "model": str(folder), "data": predictor.data, "split": split, "images": len(tables[split]),
        "rows_per_file": rows_per_file, **predictor.about, **({"mirrored": True} if mirrored else {}),
    }  # fmt: skip
    with _opened(target, about, resume) if state.is_main_process else nullcontext():
        state.wait_for_everyone()
        images = predictor.open(split, state.device)
        files = [(number, _file(target, number)) for number in range(-(-len(images) // rows_per_file))]
        of_model, mine = model_identity(path, backend), []
        for number, file in files[state.process_index :: state.num_processes]:
            rows = range(number * rows_per_file, min(len(images), (number + 1) * rows_per_file))
            made_from = {**of_model, "data": rows_identity(tables[split], rows)}
            wrong = what_is_wrong(file, rows, made_from) if file.is_file() else ""
            if wrong:
                logger.warning("%s is made again: %s", file, wrong)
            if wrong is not None:
                mine.append((file, rows, made_from))
        count = default_workers() if workers is None else workers
        reporter.start(f"predicting {split}", sum(len(rows) for _, rows, _ in mine))
        for file, rows, made_from in mine:
            with way_past_bad_images(on_bad_image, "gives it an empty row"):
                write_part(file, predictor.tables(rows, batch_size, count, reporter), made_from)
        reporter.stop()
        state.wait_for_everyone()
        if state.is_main_process and files:
            predictor.finish([file for _, file in files])
        state.wait_for_everyone()
    return target


@contextmanager
def _opened(target: Path, about: dict[str, Any], resume: bool) -> Iterator[None]:
    """Makes the folder and locks it, and checks what it holds."""
    if target.is_file():
        raise TargetError(f"{target} is a file; name a folder")
    with write_errors(target):
        target.mkdir(parents=True, exist_ok=True)
    with RunLock(target, "written"):
        _begin(target, about, resume)
        with write_errors(target, within=target):
            yield


def _begin(target: Path, about: dict[str, Any], resume: bool) -> None:
    """Writes what is predicted, or checks that the folder holds part of the same prediction."""
    if any(path.name not in (LOCK, f".{ABOUT}.new") for path in target.iterdir()):  # which a kill may leave
        if not resume:
            raise TargetError(
                f"{target} holds files already; name another folder, or give {argument('resume')} to go on"
            )
        if not (target / ABOUT).is_file():
            raise TargetError(f"{target} holds no prediction to resume ({ABOUT} is missing)")
        before = _about(target)
        if changed := [name for name in about if before.get(name) != about[name]]:
            was = ", ".join(f"{name} {before.get(name)!r} (now {about[name]!r})" for name in changed)
            raise TargetError(f"{target} holds the prediction of another {was}")
        known = {_file(target, number) for number in range(-(-about["images"] // about["rows_per_file"]))}
        if foreign := sorted(file.name for file in target.glob("part-*.parquet") if file not in known):
            raise TargetError(f"{target} holds {', '.join(foreign[:5])}, which this prediction does not make")
        return
    with write_errors(target):
        write_whole(target / ABOUT, json_text(about, indent=1) + "\n")


def _about(target: Path) -> dict[str, Any]:
    try:
        content = json.loads((target / ABOUT).read_text(encoding="utf-8"))
    except RecursionError:
        raise TargetError(f"{target / ABOUT} is no readable JSON: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise TargetError(f"{target / ABOUT} is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise TargetError(f"{target / ABOUT} must hold a JSON object, got {type(content).__name__}")
    return content


def _file(target: Path, number: int) -> Path:
    return target / f"part-{number:06d}.parquet"


__all__ = ["ABOUT", "predict_dataset"]
