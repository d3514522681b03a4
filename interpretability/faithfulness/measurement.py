"""Measurement of the faithfulness of explanations on images, compared with the random map.

Shapes: B images, h x w cells.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from ..analysis.layer_features import pixel_batches
from ..capture.model_state import undisturbed
from ..capture.subject import ExplanationError, Subject, make_subject
from ..explanation.explaining import explain
from ..explanation.explaining import logger as explaining_logger
from ..explanation.input_methods import cells
from ..explanation.methods import EXPLANATION_METHODS
from ..explanation.targets import choose
from .insertion_deletion import CURVE_MEASURES, Scores, baseline_images, cell_ranks, perturbation_curves
from .localisation import SHARES, box_iou, box_masks, mask_iou, pointing_game
from .protocol import FaithfulnessProtocol
from .result import MEASURES, RANDOM, Faithfulness, MethodResult
from .sanity_check import randomised_model, rank_correlation
from .streaming_bootstrap import StreamingBootstrap, estimate

# Function from a model, images (B, C, height, width) and classes (B,) to maps (B, height, width) or (B, h, w).
Method = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def faithfulness(
    model: nn.Module,
    data: Any,
    methods: Sequence[str] | Mapping[str, str | Method] | None = None,
    *,
    protocol: FaithfulnessProtocol | None = None,
    batch_size: int = 8,
    forward_batch: int = 64,
    progress: bool = False,
) -> Faithfulness:
    """Measures the faithfulness of explanations of a classifier.

    The measures are insertion, deletion, positive and negative perturbation, agreement with annotated objects, and the
    sanity check. Batches are processed one after the other and dropped, so that memory does not grow with the data set.

    Args:
        model: Classifier that `explain` accepts; it is not changed.
        data: Normalised images (B, C, height, width), or an iterable of batches, which are such tensors or mappings (of
            a `DataLoader`). A mapping holds "pixel_values" and, optionally, "labels" (B,), "masks" (B, height, width),
            bool, and "boxes", a sequence of B tensors (n, 4): left, top, right, bottom in pixels of `pixel_values`.
        methods: Names in `EXPLANATION_METHODS`; or a mapping from names to such names or to functions of model, images
            and classes that return maps. None uses all methods that fit the model. The random map is always added.
        protocol: Settings of the measurement, whose id is part of the result; None uses the default settings.
        batch_size: Number of images explained at once if `data` is a tensor; 8 by default.
        forward_batch: Most perturbed images per forward pass; 64 by default.
        progress: Whether to show a progress bar on the terminal; False by default.

    Raises:
        ExplanationError: The model is not a classifier, the protocol explains the true class and there are no labels,
            or a method does not fit the model.
        ValueError: There is no image, or a method does not return maps.
    """
    protocol = protocol or FaithfulnessProtocol()
    if forward_batch < 1:
        raise ValueError(f"`forward_batch` must be at least 1, got {forward_batch}")
    runs: dict[str, _Run] = {}
    seen = 0
    for batch in _batches(data, batch_size, progress):
        look = _Look.at(model, batch, protocol, seen, forward_batch)
        if not runs:
            chosen = _methods(methods, look.subject, protocol)
            runs = {name: _Run(method, protocol) for name, method in chosen.items()}
        for name, run in runs.items():
            run.update(name, look)
        if seen < protocol.sanity_images:
            _check_sanity(look, runs, protocol.sanity_images - seen)
        seen += look.subject.batch
    return Faithfulness(
        protocol, type(model).__name__, seen, {name: run.result(runs[RANDOM]) for name, run in runs.items()}
    )


@dataclass
class _Look:
    """Batch with the data that all methods share: classes, baseline, and the scores of images and baseline."""

    subject: Subject
    batch: dict[str, Any]
    protocol: FaithfulnessProtocol
    first: int
    forward_batch: int
    classes: torch.Tensor
    baseline: torch.Tensor
    whole: Scores
    none: Scores

    @classmethod
    def at(
        cls, model: nn.Module, batch: dict[str, Any], protocol: FaithfulnessProtocol, first: int, forward_batch: int
    ) -> "_Look":
        subject = make_subject(model, batch["pixel_values"])
        baseline = baseline_images(subject.pixel_values, protocol)
        with undisturbed(subject.model), torch.no_grad():
            logits = subject.logits(subject.forward())
        if logits is None or logits.ndim != 2:
            raise ExplanationError(
                f"{type(subject.model).__name__} is no classifier; faithfulness needs one score per class"
            )
        classes = logits.argmax(dim=1)
        if protocol.target == "label":
            labels = batch.get("labels")
            if not isinstance(labels, torch.Tensor) or labels.ndim != 1 or labels.is_floating_point():
                raise ExplanationError("protocol.target is 'label': each batch needs \"labels\", one class per image")
            classes = labels.to(classes)
        look = cls(subject, batch, protocol, first, forward_batch, classes, baseline, *[(classes, classes)] * 2)
        look.whole, look.none = look.score(subject.pixel_values), look.score(baseline)
        return look

    def score(self, pixels: torch.Tensor) -> Scores:
        """Scores of perturbed images, one for each image of the batch."""
        subject, found, kept = self.subject, [], []
        half = self.protocol.precision == "bf16"
        context = torch.autocast(pixels.device.type, torch.bfloat16) if half else nullcontext()
        several = getattr(getattr(subject.model, "config", None), "problem_type", "") == "multi_label_classification"
        for start in range(0, len(pixels), self.forward_batch):
            images = slice(start, start + self.forward_batch)
            with undisturbed(subject.model), torch.no_grad(), context:
                logits = subject.logits(subject.forward(pixels[images]))
            assert logits is not None
            choice = choose(subject.model, logits, self.classes[images])
            decided = choice.probabilities >= 0.5 if several else logits.argmax(dim=1) == self.classes[images]
            found.append(choice.probabilities.float().cpu())
            kept.append(decided.float().cpu())
        return torch.cat(found), torch.cat(kept)


class _Run:
    """Measurement of one method over all batches, of which only sums are kept."""

    def __init__(self, method: Method, protocol: FaithfulnessProtocol) -> None:
        self.method, self.protocol = method, protocol
        self.values = StreamingBootstrap(len(MEASURES), protocol.bootstrap, protocol.seed)
        self.correlations = StreamingBootstrap(len(protocol.randomised), protocol.bootstrap, protocol.seed)
        self.curves = np.zeros((2, protocol.steps + 1))
        self.seconds, self.images = 0.0, 0
        self.last = torch.empty(0)  # maps of the last batch, for the sanity check

    def update(self, name: str, look: _Look) -> None:
        begun = time.perf_counter()
        maps = _maps(name, self.method, look.subject.model, look.subject.pixel_values, look.classes)
        self.seconds += time.perf_counter() - begun
        ranks = cell_ranks(maps, cells(look.subject), self.protocol.seed, look.first)
        curves = perturbation_curves(
            look.score, look.subject.pixel_values, look.baseline, ranks, self.protocol.steps, look.whole, look.none
        )
        measures = torch.cat([curves.measures(), _places(maps, look)], dim=1)
        self.values.update(look.first, measures.numpy())
        self.curves += torch.stack([curves.deletion, curves.insertion]).double().sum(dim=1).numpy()
        self.images += len(maps)
        self.last = maps

    def result(self, random: "_Run") -> MethodResult:
        level, signs = self.protocol.level, np.array(list(MEASURES.values()))
        found = dict(zip(MEASURES, self.values.estimates(level), strict=True))
        found = {name: value for name, value in found.items() if name in CURVE_MEASURES or np.isfinite(value.mean)}
        gains = (self.values.replicates - random.values.replicates) * signs
        compared = {name: estimate(gains[:, place], level) for place, name in enumerate(MEASURES) if name in found}
        for name in SHARES & found.keys() if self.protocol.version > 1 else ():
            place = list(MEASURES).index(name)
            found[name] = self.values.share(place, level)
            compared[name] = self.values.share_difference(random.values, place, level)
        correlations = zip(self.protocol.randomised, self.correlations.estimates(level), strict=True)
        deletion, insertion = (self.curves / self.images).tolist()
        return MethodResult(
            found,
            {} if self is random else compared,
            {share: value for share, value in correlations if np.isfinite(value.mean)},
            self.seconds / self.images,
            deletion,
            insertion,
        )


def _check_sanity(look: _Look, runs: dict[str, _Run], count: int) -> None:
    """Compares the maps of the first `count` images with those of the model with randomised weights."""
    grid, pixels, classes = cells(look.subject), look.subject.pixel_values[:count], look.classes[:count]
    found: dict[str, list[np.ndarray]] = {name: [] for name in runs}
    for share in look.protocol.randomised:
        other = randomised_model(look.subject.model, share, look.protocol.seed)
        for name, run in runs.items():
            with _without_warnings():
                maps = _maps(name, run.method, other, pixels, classes)
            pooled = (
                torch.nn.functional.adaptive_avg_pool2d(each[:count, None], grid)[:, 0] for each in (run.last, maps)
            )
            found[name].append(rank_correlation(*pooled))
    for name, run in runs.items():
        run.correlations.update(look.first, np.stack(found[name], axis=1))


def _maps(name: str, method: Method, model: nn.Module, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Maps of a method, checked: (B, height, width) or (B, h, w), fp32 on the CPU."""
    maps = method(model, pixels, classes)
    if not isinstance(maps, torch.Tensor) or maps.ndim != 3 or len(maps) != len(pixels):
        got = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
        raise ValueError(f"method {name!r} must return maps (images, height, width) of {len(pixels)} images, got {got}")
    maps = maps.detach().float().cpu()
    if not bool(maps.isfinite().all()):
        raise ValueError(f"method {name!r} returned a map with values that are not finite")
    return maps


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppresses the warning of `explain` about empty maps, which are expected from a model with randomised weights."""
    level = explaining_logger.level
    explaining_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        explaining_logger.setLevel(level)


def _places(maps: torch.Tensor, look: _Look) -> torch.Tensor:
    """Measures of agreement with the annotations, (B, 3), in the order of `PLACE_MEASURES`; NaN without annotations."""
    found = torch.full((len(maps), 3), torch.nan, dtype=torch.float64)
    masks, boxes = look.batch.get("masks"), look.batch.get("boxes")
    if masks is None and boxes is None:
        return found
    hw = look.subject.image_hw
    full = torch.nn.functional.interpolate(maps[:, None], hw, mode="bilinear", align_corners=False)[:, 0]
    shapes = box_masks(boxes or (), hw) if masks is None else masks
    annotated = shapes.flatten(1).any(dim=1)
    found[annotated, 0] = pointing_game(full, shapes, look.protocol.tolerance)[annotated]
    if masks is not None:
        found[:, 1] = mask_iou(full, masks)
    if boxes is not None:
        found[:, 2] = box_iou(full, boxes, look.protocol.box_threshold)
    return found


def _methods(
    asked: Sequence[str] | Mapping[str, str | Method] | None, subject: Subject, protocol: FaithfulnessProtocol
) -> dict[str, Method]:
    if asked is None:
        attends = subject.architecture.kind != "cnn"
        asked = [name for name, method in EXPLANATION_METHODS.items() if attends or not method.needs_attention]
    named: dict[str, Any] = dict(asked) if isinstance(asked, Mapping) else {name: name for name in asked}
    named.setdefault(RANDOM, RANDOM)
    return {name: _built_in(each, protocol) if isinstance(each, str) else each for name, each in named.items()}


def _built_in(name: str, protocol: FaithfulnessProtocol) -> Method:
    if name not in EXPLANATION_METHODS:
        raise ExplanationError(f"`methods` must be among {', '.join(EXPLANATION_METHODS)}, or functions, got {name!r}")
    pinned = {"steps": protocol.integration_steps, "seed": protocol.seed}
    options = {key: value for key, value in pinned.items() if key in EXPLANATION_METHODS[name].options}

    def method(model: nn.Module, pixel_values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return explain(model, pixel_values, name, target=classes, **options).maps  # type: ignore[arg-type]

    return method


def _batches(data: Any, batch_size: int, progress: bool) -> Iterator[dict[str, Any]]:
    """Yields batches as mappings with "pixel_values"."""
    batches: Any = data
    if isinstance(data, torch.Tensor):
        batches = list(pixel_batches(data, batch_size))
    if progress:
        total = len(batches) if hasattr(batches, "__len__") else None
        console = Console(stderr=True)
        batches = track(batches, "measuring faithfulness", total=total, console=console, transient=True)
    empty = True
    for batch in batches:
        empty = False
        yield {"pixel_values": batch} if isinstance(batch, torch.Tensor) else dict(batch)
    if empty:
        raise ValueError("`data` yielded no batch")


__all__ = ["Method", "faithfulness"]
