"""Labels of new images: the function behind `vithub predict`."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import requests
import torch
from PIL import Image
from rich.table import Table
from rich.text import Text

from ..data.images import EXTENSIONS, BadImageError, decode_image
from ..data.sources import DataError
from ..hub.checkpoints import locate
from .any_classifier import load_classifier
from .any_detector import is_detector
from .detection_predicting import as_prediction, detect, save_predictions

MAX_DOWNLOAD = 50 * 2**20


def predict(
    folder: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    threshold: float = 0.5,
    out: str | Path | None = None,
) -> Iterator[dict[str, Any]]:
    """The most likely labels of images, or the boxes that a detector finds, in order, as `pipeline` would give them.

    Args:
        folder: A run's folder, or any saved classifier's, or a Hub id.
        images: Files, folders (searched for images) and URLs.
        top: Labels per image.
        batch_size: Images at once.
        threshold: Least score of a box.
        out: Of a detector: a new folder for the images with their boxes, and `predictions.json` in COCO's format.

    Yields:
        `image` (its name) and `predictions`: a list of `label` and `score` (0 to 1), the most likely first; of a
        detector also `box`: left, top, right, bottom in pixels.

    Raises:
        DataError: A file or folder does not exist or holds no image.
        BadImageError: An image cannot be decoded.
    """
    names = find_images(images)
    if is_detector(path := locate(folder)):
        found = detect(path, ((name, read_image(name)) for name in names), threshold)
        if out is not None:
            yield from save_predictions(list(found), out)
        else:
            yield from (as_prediction(name, boxes, labels) for name, _, boxes, labels in found)
        return
    if out is not None:
        raise ValueError("`out` is for the boxes of a detector; a classifier's labels are only returned")
    model, processor = load_classifier(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    multi_label = model.config.problem_type == "multi_label_classification"
    remaining = iter(names)
    while chunk := list(islice(remaining, batch_size)):
        pixels = torch.cat([_pixels(name, processor) for name in chunk])
        with torch.inference_mode():
            logits = model(pixel_values=pixels.to(device, model.dtype)).logits.float().cpu()
        scores = logits.sigmoid() if multi_label else logits.softmax(dim=-1)
        for name, row in zip(chunk, scores, strict=True):
            best = row.topk(min(top, len(row)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield {
                "image": name,
                "predictions": [{"label": model.config.id2label[index], "score": score} for index, score in pairs],
            }


def find_images(images: Sequence[str | Path]) -> list[str]:
    """Files and URLs, with folders replaced by the images in them, sorted."""
    found: list[str] = []
    for image in images:
        if urlparse(str(image)).scheme in ("http", "https"):
            found.append(str(image))
            continue
        path = Path(image).expanduser()
        if path.is_dir():
            inside = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
            if not inside:
                raise DataError(f"{path} holds no images ({', '.join(sorted(EXTENSIONS))})")
            found += inside
        elif path.is_file():
            found.append(str(path))
        else:
            raise DataError(f"there is no image at {image}")
    return found


def read_image(name: str) -> Image.Image:
    """The image in a file or at a URL, upright and RGB."""
    return _downloaded(name) if urlparse(name).scheme in ("http", "https") else decode_image(name, name)


def _pixels(name: str, processor: Any) -> torch.Tensor:
    pixels: torch.Tensor = processor(read_image(name), return_tensors="pt")["pixel_values"]
    return pixels


def _downloaded(url: str) -> Image.Image:
    content = bytearray()
    try:
        with requests.get(url, stream=True, timeout=30) as response:
            response.raise_for_status()
            for part in response.iter_content(1 << 16):
                content += part
                if len(content) > MAX_DOWNLOAD:
                    raise BadImageError(f"{url}: larger than {MAX_DOWNLOAD // 2**20} MiB")
    except requests.RequestException as error:
        raise BadImageError(f"{url}: {error or type(error).__name__}") from error
    return decode_image(bytes(content), url)


def prediction_table(predictions: list[dict[str, Any]]) -> Table:
    """Predictions for a terminal."""
    boxes = any("box" in entry for prediction in predictions for entry in prediction["predictions"])
    columns = ["score", "box (left, top, right, bottom)"] if boxes else ["probability"]
    table = Table("image", "label", *columns)
    for prediction in predictions:
        for rank, entry in enumerate(prediction["predictions"]):
            name = prediction["image"] if rank == 0 else ""
            last = entry is prediction["predictions"][-1]
            place = [", ".join(f"{side:.0f}" for side in entry["box"])] if boxes else []
            table.add_row(Text(name), Text(entry["label"]), f"{entry['score']:.1%}", *place, end_section=last)
    return table


__all__ = ["find_images", "predict", "prediction_table", "read_image"]
