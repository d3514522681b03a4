"""Handler of an inference endpoint for the image classifier or object detector in its folder.

A request is `{"inputs": IMAGE or [IMAGE, ...], "parameters": {...}}`. An image is a PIL image, the bytes of an image
file, or their base64 text; addresses are refused, so that a request cannot make the endpoint fetch anything. Parameters
are `top_k` of a classifier and `threshold` of a detector. The answer is that of transformers' pipeline: a list for one
image, a list of lists for several.
"""

import base64
import binascii
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import pipeline

MOST_IMAGES = 32  # in a request
MOST_BYTES = 20 * 2**20  # of an image file
MOST_PIXELS = 50_000_000  # of an image
PARAMETERS = {"image-classification": "top_k", "object-detection": "threshold"}


class EndpointHandler:
    """Loads the model once, and answers requests.

    Args:
        path: Folder of the model, with `config.json`.
    """

    def __init__(self, path: str = "") -> None:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        names = config.get("architectures") or [""]
        self.task = "object-detection" if "ObjectDetection" in names[0] else "image-classification"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # the folder is the one that the endpoint was made for, and its code is that of its model
        own_code = {"trust_remote_code": True} if "auto_map" in config else {}
        self.pipeline: Any = pipeline(self.task, model=str(path), device=device, **own_code)

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        """Answers a request.

        Raises:
            ValueError: The request has no image, too many, one that is too large or cannot be read, or a parameter that
                the model does not have.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('a request looks like {"inputs": image, "parameters": {}}, and "inputs" is missing')
        parameters = self._parameters(data.get("parameters"))
        inputs = data["inputs"]
        several = isinstance(inputs, list)
        images = inputs if several else [inputs]
        if not 1 <= len(images) <= MOST_IMAGES:
            raise ValueError(f'"inputs" must hold 1 to {MOST_IMAGES} images, got {len(images)}')
        opened = [read_image(image, number) for number, image in enumerate(images)]
        answers: list[Any] = [self.pipeline(image, **parameters) for image in opened]
        return answers if several else answers[0]

    def _parameters(self, given: Any) -> dict[str, Any]:
        if given is None:
            return {}
        allowed = PARAMETERS[self.task]
        if not isinstance(given, dict) or set(given) - {allowed}:
            raise ValueError(f'"parameters" of {self.task} may hold {allowed} alone, got {given!r}')
        value = given.get(allowed)
        whole = allowed == "top_k"
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if value is not None and not (right and (value >= 1 if whole else 0 <= value <= 1)):
            wanted = "a whole number of at least 1" if whole else "a number from 0 to 1"
            raise ValueError(f"{allowed} must be {wanted}, got {value!r}")
        return {name: number for name, number in given.items() if number is not None}


def read_image(content: Any, number: int = 0) -> Image.Image:
    """Reads one image of a request, upright and as RGB.

    Args:
        content: PIL image, bytes of an image file, or their base64 text.
        number: Place of the image in the request, for messages.

    Raises:
        ValueError: It is none of these, is too large, or cannot be decoded.
    """
    name = f"image {number}"
    if isinstance(content, str):
        content = _decoded(content, name)
    if isinstance(content, (bytes, bytearray)):
        if len(content) > MOST_BYTES:
            raise ValueError(f"{name} has {len(content)} bytes, more than {MOST_BYTES}")
        try:
            content = Image.open(io.BytesIO(content))
        except Exception as error:  # decoders raise errors of many kinds
            raise ValueError(f"{name} is no image in a known format") from error
    if not isinstance(content, Image.Image):
        raise ValueError(f"{name} must be an image, its bytes or their base64 text, got {type(content).__name__}")
    width, height = content.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{name} has {width} x {height} pixels, more than {MOST_PIXELS}")
    try:
        return ImageOps.exif_transpose(content).convert("RGB")
    except Exception as error:  # as above: a damaged file shows when it is decoded
        raise ValueError(f"{name} could not be decoded: {error}") from error


def _decoded(text: str, name: str) -> bytes:
    if "://" in text[:16]:
        raise ValueError(f"{name} is an address; send the image itself, as base64 text")
    if len(text) > MOST_BYTES * 2:
        raise ValueError(f"{name} has {len(text)} characters of text, more than {MOST_BYTES * 2}")
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is text, but no base64") from error


__all__ = ["EndpointHandler", "read_image"]
