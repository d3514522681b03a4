"""Predictions for a whole data set, as Parquet files: shared out over processes, and resumable after a kill."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.sources import DataError
from ..hub.checkpoints import locate
from ..hub.folders import TargetError
from .any_detector import is_detector
from .box_prediction import BoxPredictor
from .evaluating import default_workers
from .label_prediction import LabelPredictor
from .processes import process_state
from .progress import QuietReporter, Reporter

ABOUT = "about.json"


def predict_dataset(
    folder: str | Path,
    data: Any,
    out: str | Path,
    *,
    split: str | None = None,
    embeddings: bool = False,
    threshold: float = 0.5,
    rows_per_file: int = 1024,
    batch_size: int = 64,
    workers: int | None = None,
    on_bad_image: str = "error",
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Writes `part-000000.parquet` and so on: `rows_per_file` images each, in the order of the data set.

    Each file appears whole or not at all, so what is there when a run is killed need not be done again. The columns are
    those of `LabelPredictor`, of a detector those of `BoxPredictor`, which adds `predictions.json` in COCO's results
    format. `about.json` has the labels.

    Args:
        folder: A run's folder, or any saved classifier's or detector's, or a Hub id.
        data: As `finetune`; labels and boxes are not needed.
        out: A new folder, or with `resume` that of the same prediction.
        split: Name of the split; None takes "test" where there is one, else the last.
        embeddings: Add the column `embedding`; of classifiers only.
        threshold: Least score of a box, in [0, 1].
        rows_per_file: Images in a file.
        batch_size: Images at once, of a detector at most 8.
        workers: Loading processes; None goes by the number of cores.
        on_bad_image: "error", or "skip" for null predictions.
        resume: Go on with what is there.
        reporter: Told of the progress.

    Raises:
        TargetError: The folder holds something else, or another prediction.
        BadImageError: An image cannot be decoded.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"`on_bad_image` must be 'error' or 'skip', got {on_bad_image!r}")
    state = process_state()
    reporter = (reporter or QuietReporter()) if state.is_main_process else QuietReporter()
    target = Path(out).expanduser()
    path, skip_bad = locate(folder), on_bad_image == "skip"
    predictor: LabelPredictor | BoxPredictor
    if is_detector(path):
        if embeddings:
            raise ValueError(f"`embeddings` are of classifiers; {folder} is a detector")
        predictor = BoxPredictor(path, data, threshold, skip_bad)
    else:
        predictor = LabelPredictor(path, data, embeddings, skip_bad)
    tables = predictor.splits
    split = split or ("test" if "test" in tables else list(tables)[-1])
    if split not in tables:
        raise DataError(f"there is no split {split!r}; there are {', '.join(tables)}")
    about = {
        "model": str(folder), "data": predictor.data, "split": split, "images": len(tables[split]),
        "rows_per_file": rows_per_file, **predictor.about,
    }  # fmt: skip
    if state.is_main_process:
        _open(target, about, resume)
    state.wait_for_everyone()
    images = predictor.open(split, state.device)
    files = [(number, _file(target, number)) for number in range(-(-len(images) // rows_per_file))]
    mine = [(number, file) for number, file in files[state.process_index :: state.num_processes] if not file.is_file()]
    count = default_workers() if workers is None else workers
    reporter.start(f"predicting {split}", sum(min(rows_per_file, len(images) - n * rows_per_file) for n, _ in mine))
    for number, file in mine:
        rows = range(number * rows_per_file, min(len(images), (number + 1) * rows_per_file))
        staging = file.with_name(f".{file.name}")
        pq.write_table(pa.concat_tables(predictor.tables(rows, batch_size, count, reporter)), staging)
        staging.replace(file)
    reporter.stop()
    state.wait_for_everyone()
    if state.is_main_process and files:
        predictor.finish([file for _, file in files])
    state.wait_for_everyone()
    return target


def _open(target: Path, about: dict[str, Any], resume: bool) -> None:
    """Makes the folder, or checks that it holds a part of the same prediction."""
    if target.is_file():
        raise TargetError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()):
        if not resume:
            raise TargetError(f"{target} holds files already; name another folder, or give --resume to go on")
        if not (target / ABOUT).is_file():
            raise TargetError(f"{target} holds no prediction to resume ({ABOUT} is missing)")
        before = json.loads((target / ABOUT).read_text(encoding="utf-8"))
        if changed := [name for name in about if before.get(name) != about[name]]:
            was = ", ".join(f"{name} {before.get(name)!r} (now {about[name]!r})" for name in changed)
            raise TargetError(f"{target} holds the prediction of another {was}")
        return
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise TargetError(f"cannot write {target}: {error.strerror or error}") from error


def _file(target: Path, number: int) -> Path:
    return target / f"part-{number:06d}.parquet"


__all__ = ["ABOUT", "predict_dataset"]
