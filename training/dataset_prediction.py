"""Predictions for a whole data set, as Parquet files: shared out over processes, and resumable after a kill."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from ..data.image_data import read_image_tables
from ..data.image_dataset import EvaluationTransform, LabelledImages, collate
from ..data.sources import DataError
from ..hub.checkpoints import locate
from ..hub.folders import TargetError
from .any_classifier import load_classifier
from .evaluating import default_workers
from .feature_cache import LinearHeads
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
    rows_per_file: int = 1024,
    batch_size: int = 64,
    workers: int | None = None,
    on_bad_image: str = "error",
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Writes `part-000000.parquet` and so on: `rows_per_file` images each, in the order of the data set.

    Each file appears whole or not at all, so what is there when a run is killed need not be done again. Columns:
    `row` (int64), `image` (its file, where it has one), `label`, `score` (of the label, 0 to 1), `probabilities` and
    `logits` (float32, one per class), `embedding` (float32: what the classifier's last layer is given), and `error`
    (where an image could not be decoded; then all but `row` and `image` are null). `about.json` has the labels.

    Args:
        folder: A run's folder, or any saved classifier's, or a Hub id.
        data: As `finetune`; labels are not needed.
        out: A new folder, or with `resume` that of the same prediction.
        split: Name of the split; None takes "test" where there is one, else the last.
        embeddings: Add the column `embedding`.
        rows_per_file: Images in a file.
        batch_size: Images at once.
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
    tables, name = read_image_tables(data)
    split = split or ("test" if "test" in tables else list(tables)[-1])
    if split not in tables:
        raise DataError(f"there is no split {split!r}; there are {', '.join(tables)}")
    model, processor = load_classifier(locate(folder))
    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    about = {
        "model": str(folder), "data": name, "split": split, "images": len(tables[split]), "labels": labels,
        "rows_per_file": rows_per_file, "embeddings": embeddings,
    }  # fmt: skip
    if state.is_main_process:
        _open(target, about, resume)
    state.wait_for_everyone()
    writer = _Predictor(model.to(state.device), processor, labels, embeddings)
    images = LabelledImages(tables[split], EvaluationTransform(processor), name=split, skip_bad=on_bad_image == "skip")
    files = [(number, _file(target, number)) for number in range(-(-len(images) // rows_per_file))]
    mine = [(number, file) for number, file in files[state.process_index :: state.num_processes] if not file.is_file()]
    count = default_workers() if workers is None else workers
    reporter.start(f"predicting {split}", sum(min(rows_per_file, len(images) - n * rows_per_file) for n, _ in mine))
    for number, file in mine:
        rows = range(number * rows_per_file, min(len(images), (number + 1) * rows_per_file))
        staging = file.with_name(f".{file.name}")
        pq.write_table(pa.concat_tables(writer.tables(images, rows, batch_size, count, reporter)), staging)
        staging.replace(file)
    reporter.stop()
    state.wait_for_everyone()
    return target


class _Predictor:
    """Rows of a data set as rows of predictions."""

    def __init__(self, model: Any, processor: Any, labels: list[str], embeddings: bool) -> None:
        self.model, self.processor, self.labels = model, processor, labels
        self.heads = LinearHeads(model) if embeddings else None
        self.multi_label = model.config.problem_type == "multi_label_classification"

    def tables(
        self, images: LabelledImages, rows: range, batch_size: int, workers: int, reporter: Reporter
    ) -> Iterator[pa.Table]:
        """One table per batch."""
        batches = [list(rows[first : first + batch_size]) for first in range(0, len(rows), batch_size)]
        loader: DataLoader[Any] = DataLoader(
            images, batch_sampler=batches, num_workers=min(workers, len(rows) // 256), collate_fn=collate
        )
        for numbers, batch in zip(batches, loader, strict=True):
            yield self._table(images, numbers, batch)
            reporter.advance(len(numbers))

    @torch.inference_mode()
    def _table(self, images: LabelledImages, rows: list[int], batch: dict[str, torch.Tensor]) -> pa.Table:
        pixels = batch["pixel_values"].to(self.model.device, self.model.dtype)
        features = None
        if self.heads is not None:
            features, logits = self.heads.features(self.model, pixels)
        else:
            logits = self.model(pixel_values=pixels).logits
        logits = logits.float().cpu()
        scores = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
        best = scores.max(dim=-1)
        bad = (batch["bad"] >= 0).numpy() if "bad" in batch else np.zeros(len(rows), dtype=bool)
        columns = {
            "row": pa.array(rows, pa.int64()),
            "image": pa.array([images.file(row) for row in rows], pa.string()),
            "label": pa.array([self.labels[number] for number in best.indices.tolist()], pa.string(), mask=bad),
            "score": pa.array(best.values.numpy(), pa.float32(), mask=bad),
            "probabilities": _vectors(scores.numpy(), bad),
            "logits": _vectors(logits.numpy(), bad),
            "error": pa.array(["could not be decoded" if wrong else None for wrong in bad], pa.string()),
        }
        if features is not None:
            columns["embedding"] = _vectors(features[:, 0].cpu().numpy(), bad)
        return pa.table(columns)


def _vectors(values: np.ndarray, missing: np.ndarray) -> pa.Array:
    rows = [None if gone else row for row, gone in zip(values, missing, strict=True)]
    return pa.array(rows, pa.list_(pa.float32()))


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
