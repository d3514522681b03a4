"""Metrics of a classifier that gives each image any number of labels; memory is bounded for any number of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from scipy.special import digamma

from .....data.intervals import Interval, percentile_interval, share_interval
from ....runtime.bootstrap import group_draws, varied
from ....runtime.exact_sums import rounded
from .calibration import CalibrationBins
from .f1_scores import class_rows, macro_f1
from .reporting import measurements, save_plots
from .single_label import check_finite
from .temperature import SigmoidTemperatureSums

# Logits beyond 20 (probabilities within 2e-9 of 0 or 1) are counted as 20. A bin is 0.005 wide, and 0 is a bin edge.
REACH, BINS = 20.0, 8192
# For intervals only: images are assigned to groups in turn, and the logits of a group are counted in wider bins.
GROUPS, WIDE_BINS = 50, 512
# Limit on the number of logits (images times labels) that are kept exactly, 9 bytes each.
EXACT_SCORES = 2**20
_EMPTY, _ABSENT, _PRESENT = 0, 1, 2  # marks of kept logits: unused, without and with the label


class MultiLabelMetrics:
    """Counts of a multi-label classifier, L yes-or-no decisions per image; yes means a probability above 0.5.

    Average precision needs a ranking of the images. It uses the logits themselves as long as all of them are kept, up
    to `exact_scores`. Beyond that it uses one histogram of logits per class with bins 0.005 wide: different logits in
    one bin count as equal. `precision_error` gives the largest possible deviation: zero up to `exact_scores`, and
    beyond it a bound from the bin counts, which grows where many logits lie close together.

    Args:
        num_labels: Number of labels L.
        process: Index p of this process among those that share the images; it gets every image p + k * `processes`.
            With it, `intervals` of the summed counts equal those of one process.
        processes: Number of processes that share the images.
        exact_scores: Largest number of logits (images times labels) that are kept exactly, 9 bytes each.

    Attributes:
        headline: Key in `compute` by which two models are compared.
        confusion: None, since a multi-label classifier has no confusion matrix.
        temperature: Sums from which temperature scaling is fitted.
    """

    headline = "mean_average_precision"
    confusion: torch.Tensor | None = None

    def __init__(self, num_labels: int, process: int = 0, processes: int = 1, exact_scores: int = EXACT_SCORES) -> None:
        self.num_labels, self.process, self.processes = num_labels, process, processes
        # Each image has its own place among those of all processes, so that their tensors can be added.
        places = exact_scores // num_labels
        self.scores = torch.zeros(places, num_labels, dtype=torch.float64)
        self.marks = torch.full((places, num_labels), _EMPTY, dtype=torch.int8)
        self.histogram = torch.zeros(2, num_labels, BINS, dtype=torch.int32)  # without and with the label
        self.group_histogram = torch.zeros(GROUPS, 2, num_labels, WIDE_BINS, dtype=torch.int32)
        self.group_decisions = torch.zeros(GROUPS, 3, num_labels, dtype=torch.int64)  # found, support, claimed
        self.group_images = torch.zeros(GROUPS, 2, dtype=torch.int64)  # all images, and those with every label right
        self.loss_sum = torch.zeros(1, dtype=torch.float64)
        self.calibration = CalibrationBins()
        self.temperature = SigmoidTemperatureSums()

    @property
    def images(self) -> int:
        """Number of counted images."""
        return int(self.group_images[:, 0].sum())

    @property
    def decisions(self) -> int:
        """Number of decisions whose mean the loss is: one per image and label."""
        return self.images * self.num_labels

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch: logits (B, L) and labels (B, L), each 0 or 1.

        Raises:
            ValueError: A shape or a label does not fit, or a logit is infinite or NaN.
        """
        logits, labels = logits.detach().double().cpu(), labels.detach().cpu()
        if logits.ndim != 2 or logits.shape[1] != self.num_labels or labels.shape != logits.shape:
            raise ValueError(
                f"logits and labels must be (B, {self.num_labels}), got {tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        check_finite(logits)
        present = labels == 1
        if not bool((present | (labels == 0)).all()):
            raise ValueError("labels must be 0 or 1")
        claimed = logits > 0
        right = claimed == present
        place = self.process + self.processes * (self.images + torch.arange(len(logits)))
        group = place % GROUPS
        self._keep_logits(logits, present, place)
        self._count_logits(logits, present, group)
        decisions = torch.stack([claimed & present, present, claimed], dim=1).long()  # (B, 3, L)
        self.group_decisions.index_add_(0, group, decisions)
        self.group_images.index_add_(0, group, torch.stack([torch.ones_like(group), right.all(dim=1).long()], dim=1))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, present.double(), reduction="none")
        self.loss_sum += rounded(loss).sum()
        self.calibration.update(logits.abs().sigmoid(), right)
        self.temperature.update(logits, labels)

    def _keep_logits(self, logits: torch.Tensor, present: torch.Tensor, place: torch.Tensor) -> None:
        room = place < len(self.scores)
        room[room.clone()] = self.marks[place[room], 0] == _EMPTY  # sums over unequal processes leave gaps
        self.scores[place[room]] = logits[room]
        self.marks[place[room]] = torch.where(present[room], _PRESENT, _ABSENT).to(torch.int8)

    def _count_logits(self, logits: torch.Tensor, present: torch.Tensor, group: torch.Tensor) -> None:
        bins = ((logits + REACH) * (BINS / (2 * REACH))).floor().clamp(0, BINS - 1).long()  # (B, L)
        row = present.long() * self.num_labels + torch.arange(self.num_labels)  # row of the histogram
        ones = torch.ones(bins.numel(), dtype=torch.int32)
        self.histogram.view(-1).index_add_(0, (row * BINS + bins).flatten(), ones)
        group_row = group[:, None] * (2 * self.num_labels) + row
        wide = group_row * WIDE_BINS + bins // (BINS // WIDE_BINS)
        self.group_histogram.view(-1).index_add_(0, wide.flatten(), ones)

    def compute(self) -> dict[str, float]:
        """Computes the metrics of all decisions; each except the loss in [0, 1].

        Mean average precision and macro F1 are means over the classes that occur, micro F1 is computed from all
        decisions together, accuracy is the share of images with every label right, and the loss is binary cross-entropy
        per decision.

        Raises:
            ValueError: No image was counted, or none of them has a label.
        """
        count = self.images
        if count == 0:
            raise ValueError("no image was counted")
        found, support, claimed = self._decisions()
        if support.sum() == 0:
            raise ValueError(f"none of the {count} images has a label, so that average precision means nothing")
        return {
            "mean_average_precision": float(np.nanmean(self._average_precision())),
            "accuracy": int(self.group_images[:, 1].sum()) / count,
            "loss": float(self.loss_sum) / (count * self.num_labels),
            "micro_f1": float(_micro_f1(found, support, claimed)),
            "macro_f1": float(macro_f1(found, support, claimed)),
            "expected_calibration_error": self.calibration.expected_error(),
        }

    def intervals(self, level: float = 0.95, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """Computes intervals (low, high) of accuracy (Wilson), mean average precision, micro and macro F1 (bootstrap).

        The labels of one image belong together, so neither classes nor decisions may be resampled one by one. For all
        metrics except accuracy, images were assigned to 50 groups in turn, and the groups are resampled: up to 50
        images that is the bootstrap over images; beyond it, the same spread is estimated from fewer draws (measured:
        intervals of 95 % hold the true value about 1 % less often). Mean average precision is resampled with wider
        bins, whose deviations are added to the exact value. The calibration error has no interval, since resampling
        increases it.

        A metric has no interval if every resampled set of images gives the same value, for example if all answers are
        right.

        Args:
            level: Approximate probability that an interval holds the true value, in (0, 1).
            samples: Number of resampled sets of images.
            seed: Seed of the draws.
        """
        exact = self.compute()
        generator = np.random.default_rng(seed)
        used = (self.group_images[:, 0] > 0).numpy()
        draws = group_draws(int(used.sum()), samples, generator)
        decisions = self.group_decisions.numpy()[used].astype(np.float64)
        drawn = np.tensordot(draws, decisions, axes=1)  # (samples, 3, L)
        found, support, claimed = drawn[:, 0], drawn[:, 1], drawn[:, 2]
        spread = self._resampled_precision(draws, used)
        whole = self._resampled_precision(np.ones((1, draws.shape[1])), used)
        right = int(self.group_images[:, 1].sum())
        values = {
            "mean_average_precision": np.clip(exact["mean_average_precision"] + spread - whole, 0, 1),
            "micro_f1": _micro_f1(found, support, claimed),
            "macro_f1": macro_f1(found, support, claimed),
        }
        accuracy = share_interval(right, self.images, level)
        return {"accuracy": accuracy} | {
            name: percentile_interval(value, level) for name, value in values.items() if varied(value)
        }

    def _resampled_precision(self, draws: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Computes mean average precision, (samples,), of groups weighted by draws (samples, groups)."""
        total, classes = np.zeros(len(draws)), np.zeros(len(draws))
        for label in range(self.num_labels):
            counts = self._group_counts(label)[used].astype(np.float64)  # (groups, 2, bins)
            drawn = np.tensordot(draws, counts, axes=1)
            precision = average_precision(drawn[:, 0], drawn[:, 1])
            total += np.nan_to_num(precision)
            classes += ~np.isnan(precision)
        return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)

    def _group_counts(self, label: int) -> np.ndarray:
        """Counts images per group without and with a label, (groups, 2, bins); bins are ranks if logits are kept."""
        if (kept := self._kept(label)) is None:
            return np.asarray(self.group_histogram[:, :, label].numpy())
        scores, present, place = kept
        levels, rank = np.unique(scores, return_inverse=True)
        bins = rank if len(levels) <= WIDE_BINS else rank * WIDE_BINS // len(levels)
        counts = np.zeros((GROUPS, 2, WIDE_BINS))
        np.add.at(counts, (place % GROUPS, present.astype(np.int64), bins), 1)
        return counts

    def _kept(self, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Returns logits, presence and places of a label's images, each (images,); None unless all logits are kept."""
        mark = self.marks[:, label].numpy() if len(self.marks) else np.empty(0, dtype=np.int8)
        place = np.flatnonzero(mark)
        if len(place) != self.images or mark.max(initial=0) > _PRESENT:
            return None
        return self.scores[:, label].numpy()[place], mark[place] == _PRESENT, place

    def per_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Lists average precision (None without positives), precision, recall, F1 and number of images per class."""
        rows = class_rows(names, *self._decisions())
        return [
            {
                "label": row.pop("label"),
                "average_precision": None if np.isnan(precision) else float(precision),
                **row,
            }
            for row, precision in zip(rows, self._average_precision(), strict=True)
        ]

    def reliability(self) -> list[dict[str, Any]]:
        """Lists confidence and accuracy of the decisions per bin; see `CalibrationBins.rows`."""
        return self.calibration.rows()

    def merge(self, accelerator: Accelerator) -> None:
        """Sums the counts of all processes, in every process."""
        device = accelerator.device
        self.load([accelerator.reduce(tensor.to(device), "sum").cpu() for tensor in self.tensors()])

    def measurements(self, names: list[str]) -> dict[str, Any]:
        """Returns the entries of `metrics.json` besides `compute`; see `reporting.measurements`."""
        return measurements(self, names)

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes plots, see `reporting.save_plots`."""
        save_plots(self, names, folder)

    def tensors(self) -> list[torch.Tensor]:
        """Returns all counts as tensors; those of several processes may be added and passed to `load`."""
        return [tensor.clone() for tensor in self._tensors()]

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the counts by tensors in the form of `tensors`."""
        (
            self.histogram,
            self.group_histogram,
            self.group_decisions,
            self.group_images,
            self.scores,
            self.marks,
            self.loss_sum,
            self.calibration.sums,
            self.temperature.sums,
        ) = (tensor.detach().cpu() for tensor in tensors)

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        counted = (self.histogram, self.group_histogram, self.group_decisions, self.group_images)
        return (*counted, self.scores, self.marks, self.loss_sum, self.calibration.sums, self.temperature.sums)

    def _decisions(self) -> np.ndarray:
        """Returns true positives, positives and predictions per label, (3, L)."""
        return self.group_decisions.sum(dim=0).numpy().astype(np.float64)

    def precision_error(self) -> float:
        """Bounds the deviation of mean average precision from that of the exact logits; 0 if all are kept.

        The images of a bin may have any order. Let F be the number of images with the label, and M that of all images,
        above a bin with p images with the label and a without. The p images add at best sum_j (F + j) / (M + j), at
        worst sum_j (F + j) / (M + a + j), with j = 1 to p, and p (F + p) / (M + a + p) as counted, which lies between
        the two.
        """
        absent, present = self.histogram.numpy()
        errors = [
            0.0 if self._kept(label) is not None else _order_error(absent[label], present[label])
            for label in range(self.num_labels)
            if present[label].any()
        ]
        return float(np.mean(errors)) if errors else 0.0

    def _average_precision(self) -> np.ndarray:
        """Computes average precision per label, (L,); NaN for labels without positives."""
        absent, present = self.histogram.numpy()
        found = []
        for label in range(self.num_labels):
            if (kept := self._kept(label)) is None:
                found.append(average_precision(absent[label], present[label]))
                continue
            scores, has, _ = kept
            levels, rank = np.unique(scores, return_inverse=True)
            counts = [np.bincount(rank[has == with_label], minlength=len(levels)) for with_label in (False, True)]
            found.append(average_precision(*counts))
        return np.array(found)


def _order_error(absent: np.ndarray, present: np.ndarray) -> float:
    """Bounds the deviation of average precision from a histogram, (bins,) counts from the lowest score up."""
    own, others = present[::-1].astype(np.float64), absent[::-1].astype(np.float64)
    above = own.cumsum() - own  # images with the label above each bin
    all_above = above + others.cumsum() - others

    def added(before: np.ndarray) -> float:
        """Sums (above + j) / (before + j) over bins and j = 1 to p."""
        # The sum of 1 / (x + j) is digamma(x + p + 1) - digamma(x + 1).
        return float((own + (above - before) * (digamma(before + own + 1) - digamma(before + 1))).sum())

    best, worst = added(all_above) / own.sum(), added(all_above + others) / own.sum()
    counted = float(average_precision(absent, present))
    return max(best - counted, counted - worst, 0.0)


def average_precision(absent: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Computes the sum over thresholds of precision times the gain in recall, as scikit-learn does.

    Args:
        absent: Images without the label per score bin, lowest score first, (..., bins).
        present: Images with the label per score bin, lowest score first, (..., bins).

    Returns:
        Average precision, (...); NaN if no image has the label.
    """
    gain = present[..., ::-1].astype(np.float64)
    found = gain.cumsum(axis=-1)
    claimed = found + absent[..., ::-1].cumsum(axis=-1)
    total = found[..., -1]
    area = (gain * found / np.maximum(claimed, 1)).sum(axis=-1)
    return np.where(total > 0, area / np.maximum(total, 1), np.nan)


def _micro_f1(found: np.ndarray, support: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """Computes F1 of all decisions together, (...), from counts (..., L)."""
    micro: np.ndarray = 2 * found.sum(axis=-1) / np.maximum((support + claimed).sum(axis=-1), 1)
    return micro


__all__ = ["MultiLabelMetrics", "average_precision"]
