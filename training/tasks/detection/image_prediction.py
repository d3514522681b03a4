"""Detection in single images, as `vithub predict` does with a detector."""

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
from .detections import Detections
from .loading import load_detector, read_outputs
from .plots import detection_picture


class Detector:
    """Saved detector with its image processor, on the GPU if there is one.

    Args:
        path: Folder of the model.
        threshold: Lowest score of a box, in [0, 1].
        output: New folder for the images with drawn boxes, and for `annotations.json` in COCO's format with scores;
            None writes nothing.
        backend: Exported form to run in place of the weights, such as "onnx", or a loaded model; None takes what is
            there.

    Raises:
        CheckpointError: The model cannot be loaded completely.
    """

    def __init__(self, path: Path, threshold: float, output: str | Path | None = None, backend: Backend = None) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"{argument('threshold')} must lie in [0, 1], got {threshold!r}")
        if output is not None:
            check_target(Path(output).expanduser().absolute())
        self.path, self.threshold, self.output = path, threshold, output
        self.model, self.processor = load_detector(path, backend=backend)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        cast(nn.Module, self.model).to(self.device)
        id2label = self.model.config.id2label
        self.names = [str(id2label[number]) for number in sorted(id2label)]

    def boxes(self, name: str, image: Image.Image) -> Detections:
        """Finds boxes in one RGB image, processed alone as `pipeline` does, and clips them to the image."""
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
        kept = found.above(self.threshold)
        edges = np.array([image.width, image.height] * 2, dtype=np.float64)
        return Detections(kept.boxes.clip(0, edges), kept.scores, kept.classes)

    def predictions(self, opened: OpenedImages) -> Iterator[dict[str, Any]]:
        """Yields the predictions of each image, see `as_prediction`; the output folder appears after the last image."""
        if self.output is not None:
            yield from self._saved_predictions(opened, self.output)
            return
        for name, image in opened:
            if isinstance(image, BadImageError):
                yield bad_prediction(name, image)
            else:
                yield as_prediction(name, self.boxes(name, image), self.names)

    def _saved_predictions(self, opened: OpenedImages, folder: str | Path) -> Iterator[dict[str, Any]]:
        categories = [{"id": number, "name": text} for number, text in enumerate(self.names, 1)]
        content: dict[str, list[dict[str, Any]]] = {"images": [], "categories": categories, "annotations": []}
        with new_folder(folder) as staging:
            for number, (name, image) in enumerate(opened, 1):
                if isinstance(image, BadImageError):
                    yield bad_prediction(name, image)
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


def as_prediction(name: str, found: Detections, names: Sequence[str]) -> dict[str, Any]:
    """Makes `image` and `predictions`: `label`, `score` (0 to 1) and `box` (left, top, right, bottom in pixels)."""
    rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return {
        "image": name,
        "predictions": [
            {"label": names[number], "score": score, "box": [round(value, 2) for value in box]}
            for number, score, box in rows
        ],
    }


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


__all__ = ["Detector", "as_prediction"]
