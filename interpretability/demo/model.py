"""Model of the demo page: its predictions for an image, and the maps that explain them.

Images are shown as the model sees them, cropped and scaled, so that the maps fit them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import nn

from ...configuration.model_task import DETECTION, model_task
from ...modeling.detector_output import found_objects
from ..capture.architecture import read_architecture
from ..capture.attention_maps import attention_rows
from ..capture.subject import ExplanationError, NotApplicableError
from ..explanation.explaining import explain
from ..explanation.explanation import Explanation
from ..explanation.methods import EXPLANATION_METHODS, ExplanationMethod
from ..explanation.overlays import unit_map

MAX_BOXES = 20
LARGEST_SHOWN = 1024  # pixels of the longer side of an image that the model took as it was


@dataclass(frozen=True)
class View:
    """Settings of a requested map; None leaves a setting to the method.

    Args:
        method: Name in `EXPLANATION_METHODS`.
        label: Name of the class to explain; None means the most likely one.
        layer: Number of the layer whose attention or features are explained; None is the method's default.
        head: Number of the attention head; None is the mean over heads.
        patch: (row, column) of the patch whose attention is shown; None means CLS.
    """

    method: str
    label: str | None = None
    layer: int | None = None
    head: int | None = None
    patch: tuple[int, int] | None = None


@dataclass(frozen=True)
class Detection:
    """Detected object; box edges are relative to the image's width and height, in [0, 1].

    Args:
        label: Class name.
        score: Probability of the class, in [0, 1].
        left: Left edge of the box.
        top: Top edge of the box.
        right: Right edge of the box.
        bottom: Bottom edge of the box.
        query: Index of the object query that found it.
    """

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float
    query: int


@dataclass(frozen=True)
class Seen:
    """Image as a model sees it, with the model's predictions.

    Args:
        pixel_values: Normalised pixels (1, C, height, width).
        picture: Image for display, made of these pixels.
        scores: Labels and probabilities, most likely first; empty for a detector or a model without a head.
        detections: Detected objects, highest score first; empty for a classifier.
    """

    pixel_values: torch.Tensor
    picture: Image.Image
    scores: list[tuple[str, float]] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)


class DemoModel:
    """Model of the page, in evaluation mode.

    Args:
        name: Name of the model on the page.
        model: Classifier, detector or backbone that `explain` supports.
        image_processor: Image processor of the model.
        calibration: Temperature by which a classifier's logits are divided, with the split and the number of images
            that it was fitted on, as `calibration_of` returns it; None leaves the probabilities as they are.

    Raises:
        NotApplicableError: The model is an exported backbone, of which nothing could be shown.
    """

    def __init__(
        self, name: str, model: nn.Module, image_processor: Any, calibration: Mapping[str, Any] | None = None
    ) -> None:
        self.name, self.image_processor = name, image_processor
        self.model: Any = model.eval()
        self.calibration = calibration
        if self.unexplained and model_task(model) is None:
            raise NotApplicableError(f"{name} is an exported backbone, which has neither answers nor maps to show")

    @property
    def unexplained(self) -> str | None:
        """Why there are no maps, for the visitor; None where the model can be explained."""
        if getattr(self.model, "explainable", True):
            return None
        record = self.model.record
        return (
            f"The answers are those of an exported form ({record['format']}, {record['precision']}), which cannot be "
            "explained: serve the page from the model's weights to see where it looked."
        )

    @property
    def multi_label(self) -> bool:
        """Whether the model is a classifier that gives an image any number of labels."""
        return getattr(getattr(self.model, "config", None), "problem_type", None) == "multi_label_classification"

    @property
    def temperature(self) -> float:
        """Number by which logits are divided; 1 without calibration."""
        return 1.0 if self.calibration is None else float(self.calibration["temperature"])

    @property
    def about_probabilities(self) -> str:
        """Statement of whether the probabilities are calibrated, for the visitor; empty where there are none."""
        if self.is_detector or not self.has_head:
            return ""
        if self.calibration is None:
            stated = self.model.record.get("calibration") if self.unexplained else None
            reason = (stated or {}).get("why_not", "no temperature was measured for this model")
            return f"These probabilities are not calibrated: {reason}."
        return (
            f"These probabilities are calibrated: temperature {self.temperature:.2f}, fitted on the "
            f"{self.calibration['images']} images of the {self.calibration['fitted_on']} split."
        )

    @cached_property
    def is_detector(self) -> bool:
        """Whether the model is a detector, with or without its heads."""
        if model_task(self.model) == DETECTION:
            return True
        return self.unexplained is None and read_architecture(self.model).kind == "detector"

    @cached_property
    def _gives(self) -> tuple[bool, bool]:
        """Whether the model's output has logits, and whether it has boxes."""
        with torch.no_grad():
            output = self._output(self._pixels(Image.new("RGB", (64, 64))))
        logits, boxes = (getattr(output, name, None) is not None for name in ("logits", "pred_boxes"))
        return logits, boxes

    @cached_property
    def attention_shapes(self) -> list[tuple[int, int]]:
        """Number of heads and tokens of each attention layer over the image; empty if there is none."""
        if self.unexplained:
            return []
        blank = self._pixels(Image.new("RGB", (64, 64)))
        try:
            rows = attention_rows(self.model, blank)
        except ExplanationError:
            return []
        return [(row.shape[1], row.shape[2]) for row in rows]

    @cached_property
    def has_head(self) -> bool:
        """Whether the model outputs scores that can be explained."""
        return self.is_detector or self._gives[0]

    @property
    def methods(self) -> list[ExplanationMethod]:
        """Explanation methods that apply to this model; empty for an exported form."""
        if self.unexplained:
            return []
        methods = EXPLANATION_METHODS.values()
        return [
            method
            for method in methods
            if (self.attention_shapes or not method.needs_attention) and (self.has_head or not method.uses_class)
        ]

    @torch.no_grad()
    def look(self, image: Image.Image) -> Seen:
        """Runs the model on an image and returns its predictions."""
        pixels = self._pixels(image)
        output = self._output(pixels)
        picture = self._picture(pixels[0]) if pixels.is_floating_point() else _small(image)
        logits = getattr(output, "logits", None)
        if logits is None:
            return Seen(pixels, picture)
        if self.is_detector:
            return Seen(pixels, picture, detections=self._detections(logits, output.pred_boxes))
        scaled = logits[0].float() / self.temperature
        scores = scaled.sigmoid() if self.multi_label else scaled.softmax(-1)
        names = self.model.config.id2label
        order = scores.argsort(descending=True).tolist()
        return Seen(pixels, picture, [(str(names[index]), float(scores[index])) for index in order])

    def decision(self, seen: Seen) -> tuple[str, ...] | None:
        """Labels by which the answers of two models are compared, sorted; None for a model without a head.

        Of a classifier the likeliest label, or with several labels per image all of at least 0.5; of a detector the
        label of each object.
        """
        if self.is_detector:
            return tuple(sorted(found.label for found in seen.detections))
        if not seen.scores:
            return None
        if self.multi_label:
            return tuple(sorted(label for label, score in seen.scores if score >= 0.5))
        return (seen.scores[0][0],)

    @property
    def labels(self) -> set[str]:
        """Names of the classes that the model can answer."""
        return {str(name) for name in (getattr(self.model.config, "id2label", None) or {}).values()}

    def explained(self, seen: Seen, view: View) -> Explanation:
        """Map of an image and what it explains.

        Args:
            seen: Image and predictions, as returned by `look`.
            view: Settings of the map.

        Raises:
            ExplanationError: The model has no such map.
        """
        method = EXPLANATION_METHODS[view.method]
        options: dict[str, Any] = {"layer": view.layer, "head": view.head, "token": self._token(seen, view.patch)}
        options = {name: value if name in method.options else None for name, value in options.items()}
        target = view.label if method.uses_class else None
        return explain(self.model, seen.pixel_values, view.method, target=target, **options)

    def query_maps(self, seen: Seen, method: str = "relevance") -> list[torch.Tensor] | None:
        """Relevance maps (height, width), in [0, 1], of the query of each detection.

        None if the model has no such maps, as detectors without cross-attention over the image (YOLOS).
        """
        if self.unexplained:
            return None
        maps = []
        for detection in seen.detections:
            try:
                found = explain(self.model, seen.pixel_values, method, target=detection.label, query=detection.query)
            except NotApplicableError:
                return None
            maps.append(unit_map(found.maps[0]))
        return maps

    def grid(self, seen: Seen) -> tuple[int, int] | None:
        """(rows, columns) of patches; None if the model has no patches or is a detector."""
        if not self.attention_shapes or self.is_detector:
            return None
        _, rows, columns = explain(self.model, seen.pixel_values, "attention", layer=0).grid.shape
        return rows, columns

    def _token(self, seen: Seen, patch: tuple[int, int] | None) -> int | None:
        if patch is None or (grid := self.grid(seen)) is None:
            return None
        row, column = (min(place, size - 1) for place, size in zip(patch, grid, strict=True))
        return row * grid[1] + column

    def _output(self, pixels: torch.Tensor) -> Any:
        return self.model(pixels.to(self.model.device, self.model.dtype))

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = self.image_processor(image, return_tensors="pt")["pixel_values"]
        return pixels

    def _picture(self, pixels: torch.Tensor) -> Image.Image:
        """Image of the pixels with the normalisation undone, enlarged by a whole factor if it is small."""
        mean, std = _normalisation(self.image_processor, len(pixels))
        shown = (pixels.float().cpu() * std + mean).clamp(0, 1)[:3]
        array = (shown.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().numpy()
        picture = Image.fromarray(array)
        factor = max(1, round(448 / max(picture.size)))
        resample = Image.Resampling.NEAREST if factor > 4 else Image.Resampling.BICUBIC
        return picture.resize((picture.width * factor, picture.height * factor), resample)

    def _detections(self, logits: torch.Tensor, boxes: torch.Tensor) -> list[Detection]:
        """Detections with a score of at least 0.5, at most 20, from logits (1, Q, C or C + 1) and boxes (1, Q, 4)."""
        config = self.model.config
        (found,) = found_objects(logits.float().cpu(), boxes.float().cpu(), config.num_labels)
        kept = [place for place in found.scores.argsort(descending=True).tolist() if found.scores[place] >= 0.5]
        detections = []
        for place in kept[:MAX_BOXES]:
            left, top, right, bottom = found.boxes[place].clamp(0, 1).tolist()
            label, score = str(config.id2label[int(found.labels[place])]), float(found.scores[place])
            detections.append(Detection(label, score, left, top, right, bottom, int(found.queries[place])))
        return detections


def _small(image: Image.Image) -> Image.Image:
    """Image for display, for a model that takes the pixels of the image itself."""
    picture = image.convert("RGB")
    picture.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
    return picture


def _normalisation(image_processor: Any, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, each (C, 1, 1), of an image processor of transformers or its timm wrapper."""
    settings = getattr(image_processor, "data_config", None)
    if isinstance(settings, dict):
        mean, std = settings["mean"], settings["std"]
    elif getattr(image_processor, "do_normalize", True):
        mean, std = image_processor.image_mean, image_processor.image_std
    else:
        mean, std = [0.0] * channels, [1.0] * channels
    return _column(mean), _column(std)


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.float32)[:, None, None]


def patch_at(x: float, y: float, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the patch under a point of an image.

    Args:
        x: Horizontal position of the point in pixels.
        y: Vertical position of the point in pixels.
        size: (width, height) of the image in pixels, as Pillow states it.
        grid: (rows, columns) of patches.

    Example:
        >>> patch_at(100, 0, (200, 200), (4, 4))
        (0, 2)
    """
    row, column = int(y * grid[0] / size[1]), int(x * grid[1] / size[0])
    return max(0, min(grid[0] - 1, row)), max(0, min(grid[1] - 1, column))


__all__ = ["MAX_BOXES", "DemoModel", "Detection", "Seen", "View", "patch_at"]
