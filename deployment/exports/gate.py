"""Accuracy of an exported file against its source: the same evaluation on the same images, compared image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from ...configuration.model_task import DETECTION, model_task
from ...data.columns import LABEL
from ...data.intervals import Interval, percentile_interval
from ...hub.exported.exported_model import ExportedModel
from ...hub.exported.forms import BackendError
from ...training.runtime.progress import Reporter
from ...training.tasks.detection.metrics import coco_metrics
from ...training.tasks.evaluation import Evaluation, evaluate_split
from ...training.tasks.registry import task_of

# Largest loss that is accepted unless another is named, in percentage points, by the measure that is compared.
MAX_DROP = {"accuracy": 0.5, "mean_average_precision": 0.5, "map_50": 1.0}
RESAMPLES = 200  # of the images, for the interval of a difference in average precision
_MAP50 = 1  # place of AP at IoU 0.5 among COCO's figures


@dataclass
class GateResult:
    """Accuracy of a source and of an exported file on the same images.

    Args:
        data: Name of the data set.
        split: Name of the split.
        images: Number of images.
        measure: "accuracy", "mean_average_precision" or "map_50".
        source: Value of the source, in [0, 1].
        exported: Value of the exported file, in [0, 1].
        interval: 95 % interval of `exported - source`; None where none is computed.
        same: Share of the images with the same decision, in [0, 1]; None for a detector.
    """

    data: str
    split: str
    images: int
    measure: str
    source: float
    exported: float
    interval: Interval | None
    same: float | None

    @property
    def drop(self) -> float:
        """Loss in percentage points; negative where the exported file is better."""
        return 100 * (self.source - self.exported)

    def to_dict(self) -> dict[str, Any]:
        """Entry of `export.json`."""
        return {**vars(self), "interval": self.interval and list(self.interval), "drop_points": round(self.drop, 4)}


@dataclass
class Gate:
    """Evaluation that an exported file must pass.

    Args:
        path: Folder of the source.
        name: Name of the source in messages.
        data: Data set in any form that `evaluate` takes; None takes the run's own.
        split: Name of the split; None takes the one that `evaluate` would take.
        max_drop: Largest accepted loss in percentage points; None takes that of `MAX_DROP`.
        batch_size: Images per batch.
        reporter: Receives the progress.
    """

    path: Path
    name: str
    data: Any
    split: str | None
    max_drop: float | None
    batch_size: int = 32
    reporter: Reporter | None = None
    _reference: tuple[Evaluation, list[torch.Tensor]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        task = task_of(self.path)
        saved: Any = task.open_evaluation(self.path, self.name, self.data, self.split, None, False)
        saved.model.float()
        self.saved, self.source, self.processor = saved, saved.model, saved.processor
        self.detects = model_task(self.source) == DETECTION

    def calibration_pixels(self, count: int) -> list[torch.Tensor]:
        """Preprocessed training images, each (1, C, height, width), evenly over the split and never its test images.

        Where the data has no other split than the one to evaluate, its images are used, which `calibrated_on` says.
        """
        task = task_of(self.path)
        saved: Any = self.saved
        for split in ("train", "validation"):
            if split == self.saved.split:
                continue
            try:
                saved = task.open_evaluation(self.path, self.name, self.data, split, None, False)
                break
            except ValueError:
                continue
        self.calibrated_on = f"{saved.data}, {saved.split} split"
        evaluator = saved.evaluator(torch.device("cpu"))
        rows = range(0, len(evaluator), max(1, len(evaluator) // count))[:count]
        return [batch["pixel_values"] for batch in evaluator.loader([([row], 1) for row in rows], workers=0)]

    def measure(self, exported: ExportedModel) -> GateResult:
        """Evaluates an exported file, and the source the first time."""
        if self._reference is None:
            self._reference = self._evaluate(self.source)
        (before, decisions), (after, others) = self._reference, self._evaluate(exported)
        if self.detects:
            measure, same = "map_50", None
            interval: Interval | None = self._map_interval(before, after)
        else:
            measure, same = after.metrics.headline, _same(decisions, others)
            interval = self._accuracy_interval(decisions, others) if measure == "accuracy" else None
        one, other = (float(evaluation.values[measure] or 0.0) for evaluation in (before, after))
        size = len(self.saved.rows)
        return GateResult(self.saved.data, self.saved.split, size, measure, one, other, interval, same)

    def limit(self, result: GateResult) -> float:
        """Largest accepted loss in percentage points."""
        return MAX_DROP[result.measure] if self.max_drop is None else self.max_drop

    def check(self, result: GateResult) -> None:
        """Raises a `BackendError` if the exported file lost more than the limit."""
        if result.drop > self.limit(result):
            raise BackendError(
                f"the exported file reaches {result.measure} {result.exported:.2%} where the model reaches "
                f"{result.source:.2%} on the same {result.images} images: {result.drop:.2f} points less, more than the "
                f"{self.limit(result):g} that are allowed; nothing was kept"
            )

    def _evaluate(self, model: Any) -> tuple[Evaluation, list[torch.Tensor]]:
        """Evaluates a model as `evaluate` does; returns the decisions of a classifier too, in the order of the rows."""
        decisions: list[torch.Tensor] = []

        def note(_module: Any, _inputs: Any, outputs: Any) -> None:
            logits = outputs.logits.float()
            several = self.source.config.problem_type == "multi_label_classification"
            decisions.append((logits > 0).cpu() if several else logits.argmax(-1).cpu())

        handle = None if self.detects else model.register_forward_hook(note)
        self.saved.model = model
        self.saved.processor = getattr(model, "image_processor", None) or self.processor
        try:
            evaluator = self.saved.evaluator(torch.device("cpu"))
            evaluation = evaluate_split(evaluator, batch_size=self.batch_size, workers=0, reporter=self.reporter)
        finally:
            self.saved.model, self.saved.processor = self.source, self.processor
            if handle is not None:
                handle.remove()
        return evaluation, decisions

    def _accuracy_interval(self, decisions: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> Interval:
        labels = torch.tensor([self.saved.order[label] for label in self.saved.rows[LABEL]])
        before, after = torch.cat(list(decisions)) == labels, torch.cat(list(others)) == labels
        return paired_interval(int((before & ~after).sum()), int((~before & after).sum()), len(labels))

    def _map_interval(self, before: Evaluation, after: Evaluation) -> Interval:
        """Percentile interval of the difference in AP at IoU 0.5, over resampled images."""
        one, other = (evaluation.metrics.pairs() for evaluation in (before, after))  # type: ignore[attr-defined]
        labels, generator = before.metrics.num_labels, np.random.default_rng(0)  # type: ignore[attr-defined]
        differences = []
        for _ in range(RESAMPLES):
            drawn = generator.integers(len(one), size=len(one))
            values = [coco_metrics([pairs[row] for row in drawn], labels).stats[_MAP50] for pairs in (one, other)]
            differences.append(values[1] - values[0])
        return percentile_interval(np.asarray(differences), 0.95)


def _same(decisions: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    equal = torch.cat(list(decisions)) == torch.cat(list(others))
    return float(equal.flatten(1).all(1).float().mean() if equal.ndim > 1 else equal.float().mean())


def paired_interval(lost: int, won: int, images: int, level: float = 0.95) -> Interval:
    """Interval of the difference of two accuracies on the same images (Agresti and Min 2005, adjusted Wald interval).

    Half an image is added to each cell of the two-by-two table, so that the interval has a width where no decision
    differs.

    Args:
        lost: Number of images that only the first classifies correctly.
        won: Number of images that only the second classifies correctly.
        images: Number of images.
        level: Approximate probability that the interval contains the true difference, in (0, 1).

    Returns:
        Low and high end of second minus first, in [-1, 1].
    """
    lost_, won_, total = lost + 0.5, won + 0.5, images + 2
    middle = (won_ - lost_) / total
    deviation = ((won_ + lost_) - (won_ - lost_) ** 2 / total) ** 0.5 / total
    half = float(norm.ppf((1 + level) / 2)) * deviation
    return max(-1.0, middle - half), min(1.0, middle + half)


__all__ = ["MAX_DROP", "Gate", "GateResult", "paired_interval"]
