"""Losses that transformers' detectors compute themselves, corrected for pieces and processes from outside.

transformers divides most terms by the number of boxes of the piece at hand, and by other numbers where there are
several processes. Each term is therefore multiplied by what it was divided by, and divided by what the whole batch has:
in one piece and one process nothing changes. `loss_notes` tells what is corrected and what cannot be. Tried with
transformers 5.23.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ....modeling.detr_loss import average_over_processes
from ....modeling.detr_targets import check_targets, check_values, pad_targets
from ....modeling.modeling_detr import HubDetrForObjectDetection
from .losses import DetectorLoss, HubDetrLoss, SplitLoss, learned


@dataclass(frozen=True)
class LossKind:
    """Loss function of transformers, as far as it depends on what a batch is divided into.

    Args:
        boxes: What its box terms are divided by: "piece", the boxes of the piece; "processes", their mean over all
            processes; or "twice", that mean divided by the number of processes once more.
        weighted_classes: Whether the class term is a weighted mean over all queries; else it is divided as boxes are.
        apart: Prefixes of the terms that are means over queries, which are left as they are.
        sees_mask: Whether its models see the mask of padded images.
    """

    boxes: str
    weighted_classes: bool = False
    apart: tuple[str, ...] = ()
    sees_mask: bool = True


LOSSES = {
    "ForObjectDetectionLoss": LossKind("twice", weighted_classes=True),
    "DeformableDetrForObjectDetectionLoss": LossKind("twice"),
    "LwDetrForObjectDetectionLoss": LossKind("processes"),
    "RTDetrForObjectDetectionLoss": LossKind("piece", sees_mask=False),
    "DFineForObjectDetectionLoss": LossKind("piece", apart=("loss_ddf",), sees_mask=False),
    "Deimv2ForObjectDetectionLoss": LossKind("piece", apart=("loss_ddf",), sees_mask=False),
}
# Model types that compute DETR's loss.
_LIKE_DETR = ("detr", "table-transformer", "yolos")


def queries_of(config: Any) -> int:
    """Returns the number of object queries of a detector, from its configuration."""
    return int(getattr(config, "num_queries", None) or config.num_detection_tokens)


def class_weights(sizes: Sequence[int], config: Any) -> float:
    """Returns the sum of the queries' weights in DETR's class term: 1 with an object, `eos_coefficient` without one."""
    queries = queries_of(config)
    matched = sum(min(size, queries) for size in sizes)
    return matched + config.eos_coefficient * (len(sizes) * queries - matched)


class TransformersLoss(DetectorLoss):
    """Loss that a detector of transformers computes itself.

    Args:
        model: Detector whose `loss_function` is one of `LOSSES`.
    """

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.name = str(model.loss_function.__name__)
        self.kind = LOSSES[self.name]
        takes_mask = "pixel_mask" in inspect.signature(model.forward).parameters
        self.masked = takes_mask and self.kind.sees_mask
        self._limits: Any = SimpleNamespace(num_queries=queries_of(self.config), num_labels=self.config.num_labels)

    def targets(self, batch: dict[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the checked classes and boxes of each image; boxes are relative to the picture that the model sees.

        A model that sees no mask takes padding for a part of the picture.
        """
        del seeds  # transformers draws its own noise
        labels: list[dict[str, Any]] = batch["labels"]
        check_targets(labels, len(labels), self._limits)
        check_values(pad_targets(labels, torch.device("cpu")), self._limits)
        if self.masked:
            return learned(labels, torch.device("cpu"), only=True)
        height, width = batch["pixel_values"].shape[-2:]
        whole = torch.tensor([width, height] * 2, dtype=torch.float32)
        return [
            {
                "class_labels": target["class_labels"],
                "boxes": target["boxes"] * target["size"].flip(0).repeat(2).float() / whole,
            }
            for target in labels
        ]

    def _counts(self, sizes: Sequence[int]) -> list[float]:
        return [float(sum(sizes)), class_weights(sizes, self.config) if self.kind.weighted_classes else 1.0]

    def _used(self, own: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Returns what transformers divides box terms by, from the boxes of this process and their mean over all."""
        if self.kind.boxes == "piece":
            return own.clamp(min=1)
        groups = getattr(self.config, "group_detr", 1)
        return (mean * groups / (processes() if self.kind.boxes == "twice" else 1)).clamp(min=1) / groups

    def shares(self, targets: Sequence[list[dict[str, Any]]], device: torch.device) -> list[Any]:
        """Returns, for each piece, the factors of its box terms and of its class terms."""
        counts = torch.tensor(
            [self._counts([len(target["boxes"]) for target in piece]) for piece in targets],
            dtype=torch.float32 if device.type == "mps" else torch.float64,
        )  # (pieces, 2)
        means = average_over_processes(counts, device).to(counts.device)
        whole = means.mean(0)
        boxes = self._used(counts[:, 0], means[:, 0]) / whole[0].clamp(min=1 / (len(targets) * processes()))
        return list(torch.stack([boxes, counts[:, 1] / whole[1]], dim=1).float())

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the loss, with each term multiplied by its factor in the batch's `loss_counts`."""
        arguments = {"pixel_values": batch["pixel_values"], "labels": batch["labels"]}
        if self.masked:
            arguments["pixel_mask"] = batch["pixel_mask"]
        outputs = model(**arguments)
        boxes, classes, apart = self._parts(outputs)
        factors = batch.get("loss_counts")
        terms = {name: term.detach() for name, term in outputs.loss_dict.items() if name.startswith("loss_")}
        if factors is None:
            return outputs.loss, terms
        scaled = {
            name: term if self._is_apart(name) else term * factors[int(self._is_class(name))]
            for name, term in terms.items()
        }
        return boxes * factors[0] + classes * factors[1] + apart, scaled

    def _is_class(self, name: str) -> bool:
        return self.kind.weighted_classes and name.startswith("loss_ce")

    def _is_apart(self, name: str) -> bool:
        return bool(self.kind.apart) and name.startswith(self.kind.apart)

    def _parts(self, outputs: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Splits a loss by what its terms are divided by: boxes, weights of classes, neither.

        Terms of the last two have the weight 1 in the loss, or are weighted already.
        """
        zero = outputs.loss.new_zeros(())
        classes = sum((term for name, term in outputs.loss_dict.items() if self._is_class(name)), zero)
        apart = sum((term for name, term in outputs.loss_dict.items() if self._is_apart(name)), zero)
        return outputs.loss - classes - apart, classes, apart

    def split_counts(self, sizes: Sequence[int]) -> torch.Tensor:
        """Returns the number of boxes, the sum of the queries' weights, and the number of images, (3,) fp64."""
        return torch.tensor([*self._counts(sizes), float(len(sizes))], dtype=torch.float64)

    def divisors(self, counts: torch.Tensor) -> tuple[float, float]:
        """Returns the number of boxes, and the sum of the weights of the queries, or else the former again."""
        boxes, weights, _ = counts.tolist()
        boxes = max(boxes, 1.0)
        return boxes, weights if self.kind.weighted_classes else boxes

    def evaluate(
        self, model: nn.Module, arguments: dict[str, Any], labels: Sequence[dict[str, Any]], counts: torch.Tensor
    ) -> tuple[Any, SplitLoss]:
        """Runs the model, and divides the terms of its loss by the counts of the whole split.

        transformers gives some losses of evaluation the groups of queries that there are in training only.
        """
        device = arguments["pixel_values"].device
        with one_group(self.config):
            outputs = model(**arguments, labels=learned(labels, device, only=True))
            own = torch.tensor(self._counts([len(target["boxes"]) for target in labels]), dtype=torch.float64)
            used = float(self._used(own[0], average_over_processes(own, device).cpu()[0]))
        boxes, classes, apart = (float(part) for part in self._parts(outputs))
        by_boxes, by_classes = self.divisors(counts)
        of_classes = classes * float(own[1]) / by_classes
        whole = boxes * used / by_boxes + of_classes + apart * len(labels) / float(counts[2])
        return outputs, SplitLoss(whole, of_classes)


@contextmanager
def one_group(config: Any) -> Iterator[None]:
    """Sets the number of groups of queries to 1, as a model in evaluation has it, where its configuration has one."""
    groups = getattr(config, "group_detr", None)
    if groups is None:
        yield
        return
    config.group_detr = 1
    try:
        yield
    finally:
        config.group_detr = groups


def processes() -> int:
    """Returns the number of processes of the launch."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def computes_loss(model: Any) -> bool:
    """Whether a detector of transformers computes a loss that is known here.

    transformers names DETR's loss for every class that has no loss of its own, also for those that compute none.
    """
    name = getattr(getattr(model, "loss_function", None), "__name__", "")
    named = getattr(model, "loss_type", "") == type(model).__name__ or model.config.model_type in _LIKE_DETR
    return name in LOSSES and named


def loss_of(model: Any) -> DetectorLoss | None:
    """Returns the loss of a detector; None if it computes none that is known here."""
    if isinstance(model, HubDetrForObjectDetection):
        return HubDetrLoss(model)
    return TransformersLoss(model) if computes_loss(model) else None


def loss_notes(config: Any, criterion: DetectorLoss, pieces: int, shapes: bool) -> list[str]:
    """Describes where a loss of transformers is not what one would expect, and whether that is corrected here.

    Args:
        config: Configuration of the model.
        criterion: Loss of the model.
        pieces: Number of pieces that a step's batch is computed in, over all processes.
        shapes: Whether images keep their shapes, so that batches are padded.
    """
    if not isinstance(criterion, TransformersLoss):
        return []
    kind, notes = criterion.kind, []
    if pieces > 1:
        notes.append(_DIVIDED[kind.boxes].format(name=criterion.name, pieces=pieces))
        if kind.boxes == "piece":
            notes.append(
                "not corrected: transformers chooses the number of denoising groups by the fullest image of each of "
                f"the {pieces} pieces, and batch normalisations that learn take the statistics of a piece"
            )
        if kind.apart:
            notes.append(f"not corrected: {', '.join(kind.apart)} is a mean over the queries of a piece")
        if getattr(config, "use_dense_one_to_one", False):
            notes.append(
                "not corrected: with use_dense_one_to_one box terms are divided by the matches of a piece, whose "
                "number the predictions decide; pieces count by their boxes"
            )
    if config.model_type in _NORMS_BETWEEN and config.auxiliary_loss:
        ours = "; model.convert=true trains this package's DETR, without that" if config.model_type == "detr" else ""
        notes.append(
            "not corrected: with auxiliary_loss transformers passes the normalised queries on to the next decoder "
            f"layer, so that the model computes another function than without it{ours}"
        )
    if getattr(config, "cls_loss_coefficient", 1) != 1:
        notes.append(
            f"not corrected: cls_loss_coefficient {config.cls_loss_coefficient} has no effect in transformers, whose "
            "class term counts once"
        )
    if shapes and not criterion.masked:
        notes.append("the model sees no mask of padded images: boxes are relative to the padded picture")
    return notes


_DIVIDED = {
    "piece": "corrected: {name} divides by the boxes of each of the {pieces} pieces of a batch; here by those of all",
    "processes": "corrected: {name} divides by the boxes of each of {pieces} pieces of a batch; here by those of all",
    "twice": "corrected: {name} divides by the boxes of each of the {pieces} pieces of a batch, and over processes "
    "once more by their number; here by those of all",
}
_NORMS_BETWEEN = ("detr", "table-transformer")

__all__ = [
    "LOSSES",
    "LossKind",
    "TransformersLoss",
    "class_weights",
    "computes_loss",
    "loss_notes",
    "loss_of",
    "one_group",
    "processes",
    "queries_of",
]
