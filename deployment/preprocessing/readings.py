"""ONNX operations that read a model's outputs: a classifier's probabilities, a detector's boxes.

Each reading names its outputs, adds its operations behind the model, and compares answers.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

from ...configuration.model_task import CLASSIFICATION, DETECTION, model_task
from ...data.argument_names import argument
from ...hub.exported.exported_model import BOXES, LABELS, PROBABILITIES, SCORES
from ...hub.exported.forms import BackendError
from ...modeling.detector_output import found_objects
from .nodes import Nodes, described, write_part
from .pixel_steps import PixelSteps, pixel_steps

Outputs = dict[str, torch.Tensor]  # by name
SIZE = "image_size"  # height and width (2,) in pixels of the given images, fp32
_FLOAT = 1  # number of ONNX for fp32
_PREFIX = "reading/"
_PROBED = (480, 640)  # height and width in pixels of the image for which a processor's boxes are looked at
_CLOSE = 1e-4  # of a score or, as part of the image, of a side, up to which two boxes are the same


class Reading(Protocol):
    """Last part of a graph: what the outputs of the model say."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, in order."""

    def nodes(self, size: str) -> Nodes:
        """Operations from the model's outputs to `outputs`.

        Args:
            size: Name of the height and width (2,) in pixels of the given images, fp32; for boxes.
        """

    def descriptions(self) -> list[Any]:
        """Descriptions of `outputs` for the graph."""

    def fault(self, found: Outputs, image_hw: tuple[int, int]) -> float:
        """Largest difference of `found[outputs]` from what the rest of `found`, the model's outputs, says.

        Infinite where there is another number of answers, or one that is not there.
        """

    def distance(self, one: Outputs, other: Outputs) -> float:
        """Largest difference of a probability by two sets of the model's outputs for one image."""


@dataclass(frozen=True)
class ClassReading:
    """Probabilities of classes.

    Args:
        several: Whether each class has a probability of its own; otherwise they sum to 1.
    """

    several: bool
    outputs: tuple[str, ...] = (PROBABILITIES,)

    def nodes(self, size: str) -> Nodes:  # noqa: ARG002  # boxes need it
        """Operations from `logits` (B, classes) to `probabilities` (B, classes)."""
        part = Nodes(_PREFIX)
        if self.several:
            part.add("Sigmoid", PROBABILITIES, "logits", result=True)
        else:
            part.add("Softmax", PROBABILITIES, "logits", result=True, axis=-1)
        return part

    def descriptions(self) -> list[Any]:
        """Description of `probabilities`."""
        return [described(PROBABILITIES, "FLOAT", ["batch", "classes"])]

    def fault(self, found: Outputs, image_hw: tuple[int, int]) -> float:  # noqa: ARG002
        """Largest difference of a probability from what the logits say."""
        return _largest(found[PROBABILITIES], self._read(found))

    def distance(self, one: Outputs, other: Outputs) -> float:
        """Largest difference of a probability."""
        return _largest(self._read(one), self._read(other))

    def _read(self, outputs: Outputs) -> torch.Tensor:
        return outputs["logits"].sigmoid() if self.several else outputs["logits"].softmax(-1)


@dataclass(frozen=True)
class BoxReading:
    """Boxes in pixels of the given image with scores and labels, highest score first, without a threshold.

    Args:
        num_labels: Number of classes.
        no_object: Whether the last logit of a query stands for "no object", so that the classes exclude each other:
            each query then gives its likeliest class. Otherwise the likeliest pairs of query and class are given.
        most: Number of boxes of an image.
        processor: Image processor, whose boxes these must be.
    """

    num_labels: int
    no_object: bool
    most: int
    processor: Any = field(repr=False, compare=False)
    outputs: tuple[str, ...] = (BOXES, SCORES, LABELS)

    def nodes(self, size: str) -> Nodes:
        """Operations from `logits` (B, Q, C) and `pred_boxes` (B, Q, 4) to boxes (B, N, 4), scores and labels (B, N).

        Boxes are left, top, right, bottom.
        """
        part = Nodes(_PREFIX)
        most, last = part.constant("most", self.most), part.constant("last", -1)
        if self.no_object:
            shares = part.add("Softmax", "shares", "logits", axis=-1)
            shares = part.add("Slice", "classes", shares, part.constant("first", 0), last, last)
            best = part.add("ReduceMax", "best", shares, last, keepdims=0)
            likeliest = part.add("ArgMax", "likeliest", shares, axis=-1, keepdims=0)
            places = _highest(part, best, most)
            part.add("GatherElements", LABELS, likeliest, places, axis=1, result=True)
            queries = places
        else:
            pairs = part.add("Sigmoid", "pair_scores", "logits")
            pairs = part.add("Reshape", "pairs", pairs, part.constant("flat", 0, -1))
            places = _highest(part, pairs, most)
            classes = part.constant("number", self.num_labels)
            part.add("Mod", LABELS, places, classes, result=True)
            queries = part.add("Div", "queries", places, classes)
        corners = _corners(part)
        four = part.constant("four", 1, 1, 4)
        rows = part.add("Expand", "rows", part.add("Unsqueeze", "column", queries, last), four)
        chosen = part.add("GatherElements", "chosen", corners, rows, axis=1)
        turned = part.add("Gather", "width_height", size, part.constant("turn", 1, 0, 1, 0), axis=0)
        part.add("Mul", BOXES, chosen, turned, result=True)
        return part

    def descriptions(self) -> list[Any]:
        """Descriptions of `boxes`, `scores` and `labels`."""
        return [
            described(BOXES, "FLOAT", ["batch", self.most, 4]),
            described(SCORES, "FLOAT", ["batch", self.most]),
            described(LABELS, "INT64", ["batch", self.most]),
        ]

    def fault(self, found: Outputs, image_hw: tuple[int, int]) -> float:
        """Largest difference of a score from that of the image processor; infinite where a box is not among its own."""
        wanted = processor_boxes(self.processor, found["logits"], found["pred_boxes"], image_hw)
        scores, labels, boxes = (found[name][0] for name in (SCORES, LABELS, BOXES))
        if len(scores) != len(wanted["scores"]) or not bool((scores[:-1] >= scores[1:]).all()):
            return float("inf")
        sides = torch.tensor([image_hw[1], image_hw[0]] * 2)
        same = (wanted["scores"] - scores[:, None]).abs() <= _CLOSE  # (found, wanted)
        same &= wanted["labels"] == labels[:, None]
        same &= ((wanted["boxes"] - boxes[:, None]) / sides).abs().amax(-1) <= _CLOSE
        if not bool(same.any(1).all()) or not bool(same.any(0).all()):
            return float("inf")
        return _largest(scores, wanted["scores"].sort(descending=True).values)

    def distance(self, one: Outputs, other: Outputs) -> float:
        """Largest difference of the scores in their order, whichever query they are of."""
        scores = [self._read(outputs).scores.sort(descending=True).values for outputs in (one, other)]
        return _largest(*scores)

    def _read(self, outputs: Outputs) -> Any:
        (found,) = found_objects(outputs["logits"], outputs["pred_boxes"], self.num_labels, self.most)
        return found


def check_preprocessing(model: Any, processor: Any, option: str = "with_preprocessing") -> PixelSteps:
    """Returns the steps of the image processor of a model whose answers a graph can read.

    Args:
        model: Classifier or detector.
        processor: Its image processor.
        option: Name of the option that asks for it, for messages.

    Raises:
        BackendError: The model is neither, or its preprocessing cannot be expressed as a graph.
    """
    task = model_task(model)
    if task not in (CLASSIFICATION, DETECTION):
        raise BackendError(
            f"{argument(option)} is for image classifiers and detectors, and {type(model).__name__} is neither"
        )
    return pixel_steps(processor, any_size=task == DETECTION)


def reading_of(model: Any, processor: Any, pixels: torch.Tensor) -> Reading:
    """Reading of a model's outputs.

    Args:
        model: Classifier or detector in evaluation mode.
        processor: Its image processor.
        pixels: Normalised images (B, C, height, width), for the number of a detector's queries.

    Raises:
        BackendError: The image processor of a detector reads boxes in an unknown way.
    """
    if model_task(model) == CLASSIFICATION:
        return ClassReading(model.config.problem_type == "multi_label_classification")
    with torch.no_grad():
        _, queries, given = model(pixel_values=pixels).logits.shape
    return box_reading(processor, int(queries), int(given), int(model.config.num_labels))


def box_reading(processor: Any, queries: int, given: int, num_labels: int) -> BoxReading:
    """Reading of a detector's outputs, found by what its image processor makes of random ones.

    Args:
        processor: Image processor.
        queries: Number of queries.
        given: Number of logits per query.
        num_labels: Number of classes.

    Raises:
        BackendError: The image processor reads boxes in an unknown way.
    """
    name = type(processor).__name__
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(1, queries, given, generator=draws) * 3
    boxes = torch.rand(1, queries, 4, generator=draws)
    height, width = _PROBED
    try:
        wanted = processor_boxes(processor, logits, boxes, _PROBED)
        ((scores, labels, corners, _),) = found_objects(logits, boxes, num_labels, len(wanted["scores"]))
        pixels = corners * torch.tensor([width, height, width, height])
        pairs = ((scores, wanted["scores"]), (labels, wanted["labels"]), (pixels, wanted["boxes"]))
        alike = all(one.shape == other.shape and torch.allclose(one.float(), other.float(), atol=1e-3)
                    for one, other in pairs)  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of processors that are none of a detector
        raise BackendError(f"boxes in the graph are those of an image processor, and {name} gives none") from error
    if not alike:
        raise BackendError(
            f"boxes in the graph are the likeliest by softmax with a class for no object, or by sigmoid; {name} reads "
            f"the {given} scores per query of {num_labels} classes in another way"
        )
    return BoxReading(num_labels, given == num_labels + 1, len(scores), processor)


def processor_boxes(
    processor: Any, logits: torch.Tensor, boxes: torch.Tensor, image_hw: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """All `scores`, `labels` and `boxes` that an image processor reads for one image (height, width) in pixels."""
    outputs = DetrObjectDetectionOutput(logits=logits, pred_boxes=boxes)
    sizes = torch.tensor([image_hw])
    (found,) = processor.post_process_object_detection(outputs, threshold=-1.0, target_sizes=sizes)
    return dict(found)


def write_reading(file: Path, reading: Reading) -> None:
    """Writes an ONNX file of a detector's reading alone, with the inputs `logits`, `pred_boxes` and `size`."""
    inputs = [
        described("logits", "FLOAT", ["batch", "queries", "given"]),
        described("pred_boxes", "FLOAT", ["batch", "queries", 4]),
        described(SIZE, "FLOAT", [2]),
    ]
    write_part(file, reading.nodes(SIZE), inputs, reading.descriptions())


def size_nodes(image: str) -> Nodes:
    """Operations that take the size of the given images (B, height, width, 3) from them."""
    part = Nodes("given/")
    part.add("Cast", SIZE, part.add("Shape", "sides", image, start=1, end=3), to=_FLOAT, result=True)
    return part


def _highest(part: Nodes, scores: str, most: str) -> str:
    """Places (B, N) of the highest scores, which become an output."""
    values, places = part.add_several("TopK", ["values", "places"], scores, most, axis=1)
    part.add("Identity", SCORES, values, result=True)
    return places


def _corners(part: Nodes) -> str:
    """Left, top, right, bottom (B, Q, 4) of `pred_boxes`: center x, center y, width, height."""
    names = ["x", "y", "width", "height"]
    x, y, width, height = part.add_several("Split", names, "pred_boxes", axis=-1, num_outputs=4)
    half = part.constant("half", 0.5, dtype=np.float32)
    halves = [part.add("Mul", f"half_{side}", value, half) for side, value in (("width", width), ("height", height))]
    ends = []
    for kind, name in (("Sub", "low"), ("Add", "high")):
        ends += [
            part.add(kind, f"{name}_{axis}", middle, other)
            for axis, middle, other in zip("xy", (x, y), halves, strict=True)
        ]
    return part.add("Concat", "corners", *ends, axis=-1)


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


__all__ = [
    "SIZE",
    "BoxReading",
    "ClassReading",
    "Reading",
    "box_reading",
    "check_preprocessing",
    "processor_boxes",
    "reading_of",
    "size_nodes",
    "write_reading",
]
