"""Labels of new images: the function behind `vithub predict`."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

import requests
import torch
from PIL import Image
from rich.table import Table
from rich.text import Text
from torch import nn

from ..data.argument_names import argument, renamed
from ..data.image_files import ignored_notes, ignored_text, images_below
from ..data.images import EXTENSIONS, BadImageError, decode_image, shown_path
from ..data.sources import DataError
from ..data.text.terminal_text import visible
from ..hub.checkpoints import locate
from ..hub.inference_loading import refuse_nonfinite_scores, run_model
from .tasks.classification.loading import load_classifier
from .tasks.detection.image_prediction import Detector, bad_prediction
from .tasks.detection.loading import is_detector

MAX_DOWNLOAD = 50 * 2**20


@renamed(out="output")
def predict(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    output: str | Path | None = None,
    on_bad_image: str = "error",
) -> list[dict[str, Any]]:
    """The most likely labels of images, or the boxes that a detector finds, in order, as `pipeline` would give them.

    Args:
        folder: A run's folder, or any saved classifier's, or a Hub id.
        images: File, folder (searched for images) or URL, or a sequence of them.
        top: Labels per image of a classifier; None means 5.
        batch_size: Images at once of a classifier; None means 32. A detector sees one image at a time.
        threshold: Least score of a detector's box; None means 0.5.
        output: New folder for a detector's images with their boxes, and `predictions.json` in COCO's format.
        on_bad_image: "error", or "skip" to answer the others; the bad one then has an `error` and no predictions.

    Returns:
        For each image `image` (its name) and `predictions`: a list of `label` and `score` (0 to 1), the most likely
        first; of a detector also `box`: left, top, right, bottom in pixels, within the image.

    Raises:
        DataError: A file or folder does not exist or holds no image.
        BadImageError: An image cannot be decoded.
        CheckpointError: The model cannot be loaded whole, or its scores are not finite.
        ValueError: An option is for the other kind of model.
    """
    found = predict_stream(
        folder, images, top=top, batch_size=batch_size, threshold=threshold, output=output, on_bad_image=on_bad_image
    )
    return list(found)


@renamed(out="output")
def predict_stream(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    output: str | Path | None = None,
    on_bad_image: str = "error",
) -> Iterator[dict[str, Any]]:
    """Predictions one after the other, for more images than memory holds answers of.

    Differs from `predict` by what it returns: an iterator that reads the next batch of images when it is asked for.
    Wrong arguments, missing files and a model that cannot be loaded are errors of the call itself.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"{argument('on_bad_image')} must be 'error' or 'skip', got {on_bad_image!r}")
    for name, value in {"top": top, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise ValueError(f"{argument(name)} must be at least 1, got {value}")
    names = find_images([images] if isinstance(images, str | Path) else images)
    if not names:
        raise DataError("there are no images: name files, folders or URLs")
    skip_bad = on_bad_image == "skip"
    if is_detector(path := locate(folder)):
        _refuse_without_effect("a detector", top=top, batch_size=batch_size)
        detector = Detector(path, 0.5 if threshold is None else threshold)
        opened = ((name, _opened(name, skip_bad)) for name in names)
        return detector.predictions(opened) if output is None else detector.saved_predictions(opened, output)
    _refuse_without_effect("a classifier", threshold=threshold)
    if output is not None:
        raise ValueError(
            f"{argument('output')} is for the boxes of a detector; a classifier's labels are only returned"
        )
    return _Classifier(path, 5 if top is None else top).predictions(names, batch_size or 32, skip_bad)


def _refuse_without_effect(kind: str, **options: Any) -> None:
    """Raises where an option is given that does nothing for a kind of model."""
    if given := [f"{argument(name)} {value!r}" for name, value in options.items() if value is not None]:
        raise ValueError(f"{' and '.join(given)} has no effect on {kind}")


class _Classifier:
    """A saved classifier on the device that computes, and its image processor."""

    def __init__(self, path: Path, top: int) -> None:
        self.path, self.top = path, top
        self.model, self.processor = load_classifier(path)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        cast(nn.Module, self.model).to(self.device)

    def predictions(self, names: Sequence[str], batch_size: int, skip_bad: bool) -> Iterator[dict[str, Any]]:
        """The answers, batch after batch; those before a bad image come before its error."""
        remaining = iter(names)
        while chunk := list(islice(remaining, batch_size)):
            opened: dict[int, Image.Image | BadImageError] = {}
            for place, name in enumerate(chunk):
                try:
                    opened[place] = _opened(name, skip_bad)
                except BadImageError as error:
                    yield from self._answers(chunk, opened)
                    raise error from None
            yield from self._answers(chunk, opened)

    def _answers(
        self, names: Sequence[str], opened: dict[int, Image.Image | BadImageError]
    ) -> Iterator[dict[str, Any]]:
        good = {place: image for place, image in opened.items() if isinstance(image, Image.Image)}
        scores = dict(zip(good, self._scores(list(good.values()), [names[n] for n in good]), strict=True))
        labels = self.model.config.id2label
        for place, content in opened.items():
            if isinstance(content, BadImageError):
                yield bad_prediction(names[place], content)
                continue
            best = scores[place].topk(min(self.top, len(labels)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found = [{"label": labels[index], "score": score} for index, score in pairs]
            yield {"image": names[place], "predictions": found}

    def _scores(self, images: Sequence[Image.Image], names: Sequence[str]) -> Sequence[torch.Tensor]:
        """Probabilities of each image, (C,)."""
        if not images:
            return []
        pixels = torch.cat([self.processor(image, return_tensors="pt")["pixel_values"] for image in images])
        with torch.inference_mode():
            output = run_model(self.model, self.path, pixel_values=pixels.to(self.device, self.model.dtype))
        logits = output.logits.float().cpu()
        refuse_nonfinite_scores(logits, self.path, lambda row: names[row])
        several = self.model.config.problem_type == "multi_label_classification"
        return list(logits.sigmoid() if several else logits.softmax(dim=-1))


def find_images(images: Sequence[str | Path]) -> list[str]:
    """Files and URLs, with folders replaced by the images in them, sorted."""
    found: list[str] = []
    for image in images:
        if urlparse(str(image)).scheme in ("http", "https"):
            found.append(str(image))
            continue
        path = Path(image).expanduser()
        if path.is_dir():
            inside = images_below(path)
            if not inside.files:
                only = f", only {ignored_text(inside.ignored)}" if inside.ignored else ""
                raise DataError(f"{path} holds no images ({', '.join(sorted(EXTENSIONS))}){only}")
            ignored_notes(shown_path(path.name), inside.ignored)
            found += map(str, inside.files)
        elif path.is_file():
            found.append(str(path))
        else:
            raise DataError(f"there is no image at {image}")
    return found


def read_image(name: str) -> Image.Image:
    """The image in a file or at a URL, upright and RGB."""
    return _downloaded(name) if urlparse(name).scheme in ("http", "https") else decode_image(name, name)


def _opened(name: str, skip_bad: bool) -> Image.Image | BadImageError:
    """An image, or with `skip_bad` the error in its place."""
    try:
        return read_image(name)
    except BadImageError as error:
        if not skip_bad:
            raise
        return error


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
        if "error" in prediction:
            table.add_row(
                Text(visible(prediction["image"])), Text("could not be decoded", style="red"), end_section=True
            )
        for rank, entry in enumerate(prediction["predictions"]):
            name = prediction["image"] if rank == 0 else ""
            last = entry is prediction["predictions"][-1]
            place = [", ".join(f"{side:.0f}" for side in entry["box"])] if boxes else []
            table.add_row(
                Text(visible(name)), Text(visible(entry["label"])), f"{entry['score']:.1%}", *place, end_section=last
            )
    return table


def bad_images_text(predictions: Sequence[dict[str, Any]]) -> str | None:
    """One line that lists the images that could not be decoded, each with its reason; None where there are none."""
    wrong = [str(prediction["error"]) for prediction in predictions if "error" in prediction]
    if not wrong:
        return None
    return f"{len(wrong)} of {len(predictions)} images could not be decoded: {'; '.join(wrong)}"


__all__ = ["bad_images_text", "find_images", "predict", "predict_stream", "prediction_table", "read_image"]
