"""HTML of detected boxes over an image; a box shows the map of its query on hover or when it has the focus.

The fragment is HTML and CSS only, without scripts; names are escaped.
"""

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from ...data.text.html_text import html_text
from .model import Detection

NO_MAPS = "This model has no maps of where its queries looked."
_STYLE = """<style>
.vithub-boxes{position:relative;display:inline-block;max-width:100%;line-height:0}
.vithub-boxes>img{max-width:100%}
.vithub-boxes .map{position:absolute;inset:0;width:100%;height:100%;opacity:0;pointer-events:none}
.vithub-boxes .box{position:absolute;border:2px solid #f5a400;background:transparent;padding:0;cursor:pointer;\
outline:1px solid #0008}
.vithub-boxes .box:hover,.vithub-boxes .box:focus-visible{border-color:#fff;z-index:3}
.vithub-boxes .box:hover+.map,.vithub-boxes .box:focus-visible+.map{opacity:.85}
.vithub-boxes .box span{position:absolute;left:0;bottom:100%;font:600 12px/1.5 system-ui,sans-serif;\
background:#000c;color:#fff;padding:0 4px;white-space:nowrap}
.vithub-boxes .box.high span{bottom:auto;top:0}
</style>"""


def boxes_html(
    picture: Image.Image,
    detections: Sequence[Detection],
    maps: Sequence[torch.Tensor] | None,
    without: str = NO_MAPS,
) -> str:
    """HTML of an image with its detections.

    Args:
        picture: Image as the model sees it.
        detections: Objects found in the image.
        maps: Relevance map (height, width) in [0, 1] of each detection's query. None if the model has no such maps; the
            boxes are then shown alone, with a line that says so.
        without: That line; empty where it is said elsewhere.
    """
    if not detections:
        return f'<div class="vithub-boxes">{_image(picture, "the picture")}</div><p>No object was found.</p>'
    parts = [_STYLE, '<div class="vithub-boxes" role="group" aria-label="objects found">', _image(picture, "")]
    shown = [None] * len(detections) if maps is None else maps
    for detection, values in zip(detections, shown, strict=True):
        place = {
            "left": detection.left,
            "top": detection.top,
            "width": detection.right - detection.left,
            "height": detection.bottom - detection.top,
        }
        style = ";".join(f"{name}:{100 * value:.2f}%" for name, value in place.items())
        text = f"{html_text(detection.label)} {detection.score:.0%}"
        high = " high" if detection.top < 0.06 else ""
        parts.append(
            f'<button type="button" class="box{high}" style="{style}" aria-label="{text}"><span>{text}</span></button>'
        )
        if values is not None:
            parts.append(_map(values))
    line = f"<p>{html_text(without)}</p>" if maps is None and without else ""
    return "".join([*parts, "</div>", line])


def _image(picture: Image.Image, description: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return f'<img alt="{description}" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _map(values: torch.Tensor) -> str:
    """HTML of a map as an image that is more opaque where the map is larger."""
    unit = values.numpy()
    colours = mpl.colormaps["viridis"](unit)
    colours[..., 3] = 0.25 + 0.6 * unit
    buffer = io.BytesIO()
    small = Image.fromarray(np.round(255 * colours).astype(np.uint8))
    small.thumbnail((320, 320))
    small.save(buffer, "PNG")
    return f'<img class="map" alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


__all__ = ["NO_MAPS", "boxes_html"]
