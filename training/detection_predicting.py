"""Boxes in new images: what `vithub predict` does with a detector."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..hub.folders import new_folder
from .any_detector import load_detector, read_outputs
from .detection_figures import detection_picture
from .detections import Detections


def detect(
    path: Path, images: Sequence[tuple[str, Image.Image]] | Iterator[tuple[str, Image.Image]], threshold: float
) -> Iterator[tuple[str, Image.Image, Detections, list[str]]]:
    """Boxes of each image, one after the other as `pipeline` does: its name, itself, what is found, class names.

    Args:
        path: Of the detector.
        images: Names and RGB images.
        threshold: Least score, in [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must lie in [0, 1], got {threshold!r}")
    model, processor = load_detector(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    names = [str(model.config.id2label[number]) for number in sorted(model.config.id2label)]
    for name, image in images:
        inputs = processor(image, return_tensors="pt")
        inputs = {key: value.to(device) for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            outputs = model(**inputs)
        size = torch.tensor([[image.height, image.width]])
        yield name, image, read_outputs(processor, outputs, size, len(names))[0].above(threshold), names


def as_prediction(name: str, found: Detections, names: Sequence[str]) -> dict[str, Any]:
    """`image` and `predictions`: `label`, `score` (0 to 1) and `box`, left, top, right, bottom in pixels."""
    rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return {
        "image": name,
        "predictions": [
            {"label": names[number], "score": score, "box": [round(value, 2) for value in box]}
            for number, score, box in rows
        ],
    }


def save_predictions(
    found: Sequence[tuple[str, Image.Image, Detections, list[str]]], folder: str | Path
) -> list[dict[str, Any]]:
    """Writes each image with its boxes, and `predictions.json` in COCO's format, its annotations with scores.

    Args:
        found: As `detect` gives it.
        folder: New.

    Returns:
        What was found, as `as_prediction`.
    """
    content: dict[str, list[dict[str, Any]]] = {"images": [], "categories": [], "annotations": []}
    with new_folder(folder) as staging:
        for number, (name, image, detections, names) in enumerate(found, 1):
            file = f"{number:04}-{Path(name).stem}.png"
            detection_picture(image, detections, names, 0.0).save(staging / file)
            content["categories"] = [{"id": n + 1, "name": text} for n, text in enumerate(names)]
            content["images"].append(
                {"id": number, "file_name": Path(name).name, "width": image.width, "height": image.height}
            )
            for row in range(len(detections)):
                left, top, right, bottom = (round(value, 3) for value in detections.boxes[row].tolist())
                box = [left, top, round(right - left, 3), round(bottom - top, 3)]
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1, "image_id": number,
                        "category_id": int(detections.classes[row]) + 1, "bbox": box, "area": box[2] * box[3],
                        "iscrowd": 0, "score": round(float(detections.scores[row]), 6),
                    }
                )  # fmt: skip
        (staging / "predictions.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [as_prediction(name, detections, names) for name, _, detections, names in found]


__all__ = ["as_prediction", "detect", "save_predictions"]
