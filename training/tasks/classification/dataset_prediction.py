"""Predictions of a classifier for the images of a data set, as rows of a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ....data.argument_names import argument
from ....data.labelled.dataset import EvaluationTransform, LabelledImages, collate
from ....data.labelled.tables import read_image_tables
from ....hub.inference_loading import refuse_nonfinite_scores, run_model
from ....hub.ready_model import Backend, ReadyModel
from ...runtime.batch_loading import BatchLoader
from ...runtime.progress import Reporter
from ..evaluation import useful_workers
from .evaluation import IMAGES_PER_WORKER
from .feature_cache import LinearHeads
from .loading import load_classifier


class LabelPredictor:
    """Predictor that turns rows of a data set into rows of predictions.

    Columns: `row` (int64), `image` (file name, if there is one), `label`, `score` (of the label, 0 to 1),
    `probabilities` and `logits` (float32, one per class), `embedding` (float32, input of the classifier's last layer),
    and `error` (set if an image could not be decoded; then all columns except `row` and `image` are null).

    Args:
        path: Folder of the classifier.
        data: Data set in any form that `finetune` takes; labels are not needed.
        embeddings: Whether to add the column `embedding`.
        skip_bad: Whether to accept images that cannot be decoded.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.
    """

    def __init__(self, path: Path, data: Any, embeddings: bool, skip_bad: bool, backend: Backend = None) -> None:
        self.splits, self.data = read_image_tables(data)
        self.model, self.processor = load_classifier(path, backend=backend)
        if embeddings and isinstance(backend, ReadyModel):
            raise ValueError(
                f"{argument('embeddings')} are of the weights themselves: leave out what runs in their place "
                f"({backend.described})"
            )
        self.path = path
        self.embeddings, self.skip_bad = embeddings, skip_bad
        self.labels = [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]
        self.about = {"labels": self.labels, "embeddings": embeddings}
        self.multi_label = self.model.config.problem_type == "multi_label_classification"

    def open(self, split: str, device: torch.device) -> LabelledImages:
        """Returns the images of a split and moves the model to its device."""
        self.model.to(device)
        self.heads = LinearHeads(self.model) if self.embeddings else None
        transform = EvaluationTransform(self.processor)
        self.images = LabelledImages(self.splits[split], transform, name=split, skip_bad=self.skip_bad)
        return self.images

    def tables(self, rows: range, batch_size: int, workers: int, reporter: Reporter) -> Iterator[pa.Table]:
        """Yields one table per batch."""
        batch_size = min(batch_size, getattr(self.model, "largest_batch", None) or batch_size)
        batches = [list(rows[first : first + batch_size]) for first in range(0, len(rows), batch_size)]
        useful = useful_workers(workers, len(rows), IMAGES_PER_WORKER)
        loader = BatchLoader(self.images, batches, collate, useful, self.model.device)
        for numbers, batch in zip(batches, loader, strict=True):
            yield self._table(numbers, batch)
            reporter.advance(len(numbers))

    def finish(self, files: list[Path]) -> None:
        """Does nothing: a classifier writes only the files of rows."""

    @torch.inference_mode()
    def _table(self, rows: list[int], batch: dict[str, torch.Tensor]) -> pa.Table:
        pixels = batch["pixel_values"].to(self.model.device, self.model.dtype)
        features = None
        if self.heads is not None:
            features, logits = self.heads.features(self.model, pixels)
        else:
            logits = run_model(self.model, self.path, pixel_values=pixels).logits
        logits = logits.float().cpu()
        refuse_nonfinite_scores(logits, self.path, lambda place: self.images.describe(rows[place]))
        scores = logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)
        best = scores.max(dim=-1)
        bad = (batch["bad"] >= 0).numpy() if "bad" in batch else np.zeros(len(rows), dtype=bool)
        columns = {
            "row": pa.array(rows, pa.int64()),
            "image": pa.array([self.images.file(row) for row in rows], pa.string()),
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


__all__ = ["LabelPredictor"]
