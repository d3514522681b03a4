"""Detection in single images, as `vithub predict` does with a detector."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from ....data.argument_names import argument
from ....data.images import BadImageError
from ....data.text.json_text import json_text
from ....hub.checkpoints import CheckpointError
from ....hub.folders import check_target, new_folder
from ....hub.inference_loading import run_model
from ....hub.ready_model import Backend
from ..predictions import OpenedImages, bad_prediction
from ..tiling import Tiling
from .detections import Detections
from .loading import load_detector, read_outputs
from .plots import detection_picture
from .tiles.merging import merge_views, view_of

logger = logging.getLogger("vithub")


class SupervisionMissingError(RuntimeError):
    """Error raised if the package supervision is not installed."""


class FoundBoxes(list[dict[str, Any]]):
    """Boxes found in one image: a list with `label`, `score` and `box` of each, which supervision's tools take too.

    Args:
        entries: Entries of `as_prediction`.
        found: The same detections in pixels of the image, with class numbers of the model.
    """

    def __init__(self, entries: list[dict[str, Any]], found: Detections) -> None:
        super().__init__(entries)
        self.found = found

    def to_supervision(self) -> Any:
        """Converts to `supervision.Detections` (https://supervision.roboflow.com), for its annotators, zones, trackers.

        Its `xyxy` (n, 4) float32 are left, top, right and bottom in pixels, `confidence` (n,) float32 the scores,
        `class_id` (n,) the model's class numbers, and `data["class_name"]` (n,) the labels; the best box comes first.

        Raises:
            SupervisionMissingError: The package is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise SupervisionMissingError(
                "`to_supervision` needs the package supervision: pip install supervision"
            ) from error
        labels = np.array([entry["label"] for entry in self], dtype=np.str_)
        return supervision.Detections(
            xyxy=self.found.boxes.astype(np.float32), confidence=self.found.scores.astype(np.float32),
            class_id=self.found.classes, data={"class_name": labels},
        )  # fmt: skip


class BoxPrediction(dict[str, Any]):
    """Prediction of one image: a dictionary with `image` and `predictions`, which supervision's tools take too.

    Args:
        content: `image` (its name), `predictions` (see `as_prediction`), and `error` if it could not be decoded.
        found: Detections in pixels of the image, with class numbers of the model; None if it could not be decoded.
    """

    def __init__(self, content: dict[str, Any], found: Detections | None) -> None:
        super().__init__(content)
        self.found = found

    def to_supervision(self) -> Any:
        """Converts to `supervision.Detections`; see `FoundBoxes`.

        Raises:
            SupervisionMissingError: The package is not installed.
            ValueError: The image could not be decoded.
        """
        if self.found is None:
            raise ValueError(f"there are no boxes to convert: {self['error']}")
        return self["predictions"].to_supervision()


class Detector:
    """Saved detector with its image processor, on the GPU if there is one.

    Args:
        path: Folder of the model.
        threshold: Lowest score of a box, in [0, 1].
        output: New folder for the images with drawn boxes, and for `annotations.json` in COCO's format with scores;
            None writes nothing.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.
        tiling: Way to look at large pictures in tiles; None looks at all as a whole.

    Raises:
        CheckpointError: The model cannot be loaded completely.
    """

    def __init__(
        self, path: Path, threshold: float, output: str | Path | None = None, backend: Backend = None,
        tiling: Tiling | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= threshold <= 1:
            raise ValueError(f"{argument('threshold')} must lie in [0, 1], got {threshold!r}")
        if output is not None:
            check_target(Path(output).expanduser().absolute())
        self.path, self.threshold, self.output, self.tiling = path, threshold, output, tiling
        self.model, self.processor = load_detector(path, backend=backend)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        cast(nn.Module, self.model).to(self.device)
        id2label = self.model.config.id2label
        self.names = [str(id2label[number]) for number in sorted(id2label)]
        self.seen = self.fitting = 0  # images so far, and those of them that fit one tile

    def boxes(self, name: str, image: Image.Image) -> Detections:
        """Finds boxes in one RGB image, in tiles if it is larger than one, and clips them to the image."""
        tiling = self.tiling
        self.seen += 1
        if tiling is None or tiling.fits(image.height, image.width):
            self.fitting += 1
            kept = self._alone(name, image).above(self.threshold)
            edges = np.array([image.width, image.height] * 2, dtype=np.float64)
            return Detections(kept.boxes.clip(0, edges), kept.scores, kept.classes)
        regions = tiling.regions(image.height, image.width)
        if tiling.full_picture:
            regions.append((0, 0, image.width, image.height))
        # boxes below half the threshold neither are reported nor make a reported box larger
        views = [view_of(one, self._alone(name, image.crop(one)).above(self.threshold / 2)) for one in regions]
        return merge_views(views, tiling.merge).above(self.threshold)

    def _alone(self, name: str, image: Image.Image) -> Detections:
        """Finds boxes of any score in an image or tile, processed alone as `pipeline` does."""
        inputs = self.processor(image, return_tensors="pt")
        inputs = {key: value.to(self.device) for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        with torch.inference_mode():
            outputs = run_model(self.model, self.path, **inputs)
        size = torch.tensor([[image.height, image.width]])
        try:
            (found,) = read_outputs(self.processor, outputs, size, len(self.names))
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}, for {name}") from error
        return found

    def predictions(self, opened: OpenedImages) -> Iterator[BoxPrediction]:
        """Yields the predictions of each image, see `as_prediction`; the output folder appears after the last image."""
        if self.output is not None:
            yield from self._saved_predictions(opened, self.output)
        else:
            for name, image in opened:
                if isinstance(image, BadImageError):
                    yield BoxPrediction(bad_prediction(name, image), None)
                else:
                    yield as_prediction(name, self.boxes(name, image), self.names)
        if self.tiling is not None and (note := self.tiling.fit_note(self.fitting, self.seen)):
            logger.warning("%s", note)

    def _saved_predictions(self, opened: OpenedImages, folder: str | Path) -> Iterator[BoxPrediction]:
        categories = [{"id": number, "name": text} for number, text in enumerate(self.names, 1)]
        content: dict[str, list[dict[str, Any]]] = {"images": [], "categories": categories, "annotations": []}
        with new_folder(folder) as staging:
            for number, (name, image) in enumerate(opened, 1):
                if isinstance(image, BadImageError):
                    yield BoxPrediction(bad_prediction(name, image), None)
                    continue
                found = self.boxes(name, image)
                picture = detection_picture(image, found, self.names, 0.0)
                picture.save(staging / f"{number:04}-{Path(name).stem}.png")
                content["images"].append(
                    {"id": number, "file_name": Path(name).name, "width": image.width, "height": image.height}
                )
                content["annotations"] += _annotations(found, number, len(content["annotations"]) + 1)
                yield as_prediction(name, found, self.names)
            (staging / "annotations.json").write_text(json_text(content, indent=1) + "\n", encoding="utf-8")


def as_prediction(name: str, found: Detections, names: Sequence[str]) -> BoxPrediction:
    """Makes `image` and `predictions`: `label`, `score` (0 to 1) and `box` (left, top, right, bottom in pixels)."""
    rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    entries = [
        {"label": names[number], "score": score, "box": [round(value, 2) for value in box]}
        for number, score, box in rows
    ]
    return BoxPrediction({"image": name, "predictions": FoundBoxes(entries, found)}, found)


def _annotations(found: Detections, image: int, first: int) -> list[dict[str, Any]]:
    """Makes COCO annotations of an image's boxes, with scores.

    Args:
        found: Detections in the image.
        image: Id of the image.
        first: Id of the first annotation.
    """
    rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    annotations = []
    for number, (label, score, corners) in enumerate(rows, first):
        left, top, right, bottom = (round(value, 3) for value in corners)
        box = [left, top, round(right - left, 3), round(bottom - top, 3)]
        annotations.append(
            {
                "id": number, "image_id": image, "category_id": label + 1, "bbox": box, "area": box[2] * box[3],
                "iscrowd": 0, "score": round(score, 6),
            }
        )  # fmt: skip
    return annotations


__all__ = ["BoxPrediction", "Detector", "FoundBoxes", "SupervisionMissingError", "as_prediction"]
