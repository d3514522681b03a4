"""Files that a visitor saves from the page: the picture with its map or boxes (PNG), and the answer (JSON).

They are links that hold their content, so that nothing is kept on the server and no other request is made.
"""

import base64
import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from ...data.boxes.pictures import draw_boxes
from ...data.text.html_text import html_text
from ...data.text.json_text import json_text
from ..explanation.explanation import Explanation
from ..explanation.figures import drawable, explanation_figure, figure_picture
from ..explanation.report import file_stem
from .answers import answer_of
from .model import DemoModel, Seen


@dataclass(frozen=True)
class Shown:
    """What the page shows of one model.

    Args:
        name: File name of the picture.
        seen: Picture and predictions.
        explanation: Map that is shown; None without one.
    """

    name: str
    seen: Seen
    explanation: Explanation | None = None


def saving_links(model: DemoModel, shown: Shown | None) -> str:
    """HTML of the links that save the picture and the answer; empty without a picture."""
    if shown is None:
        return ""
    stem = "-".join(file_stem(part) for part in (shown.name, model.name))
    what, picture = "picture as the model sees it", shown.seen.picture
    if shown.explanation is not None:
        what, picture = "picture with its map", map_picture(shown)
        stem += f"-{shown.explanation.method}"
    elif model.is_detector:
        what, picture = "picture with its boxes", boxes_picture(shown.seen)
    content = io.BytesIO()
    picture.save(content, "PNG")
    text = json_text(answer_json(model, shown), indent=1) + "\n"
    return (
        '<p class="vithub-save">'
        + link(content.getvalue(), "image/png", f"{stem}.png", f"Save the {what} (PNG)")
        + link(text.encode(), "application/json", f"{stem}.json", "Save the answer (JSON)")
        + "</p>"
    )


def answer_json(model: DemoModel, shown: Shown) -> dict[str, Any]:
    """Answer of a model to the picture, and which map is shown, as JSON values."""
    content: dict[str, Any] = {"picture": shown.name, **answer_of(model, shown.seen).content}
    if (found := shown.explanation) is not None:
        low, high = found.legend().ends
        content["map"] = {
            "method": found.method,
            "explained": None if found.labels is None else found.labels[0],
            "layer": found.layer,
            "head": found.head,
            "token": found.token,
            "scale": {"meaning": found.legend().scale, "first_colour": low, "last_colour": high},
            "grid": found.grid[0].tolist(),
        }
    return content


def map_picture(shown: Shown) -> Image.Image:
    """Picture beside its map, with a legend that has the page's probabilities."""
    seen, found = shown.seen, shown.explanation
    assert found is not None
    legend, scores = found.legend(), dict(seen.scores)
    if found.labels is not None and found.target is not None and scores:
        best, explained = seen.scores[0][0], found.labels[0]
        lines = [f"prediction: {drawable(best, 'the likeliest class')} ({scores[best]:.1%})"]
        if explained != best:
            name = drawable(explained, f"class {found.target[0]}")
            lines.append(f"explained: {name} ({scores[explained]:.1%})")
        legend = replace(legend, lines=tuple(lines))
    return figure_picture(explanation_figure([seen.picture], [found.overlay(seen.picture)], [legend]))


def boxes_picture(seen: Seen) -> Image.Image:
    """Picture with the boxes that were found, their classes and probabilities."""
    width, height = seen.picture.size
    boxes = [
        (found.left * width, found.top * height, found.right * width, found.bottom * height)
        for found in seen.detections
    ]
    texts = [f"{drawable(found.label, 'object')} {found.score:.0%}" for found in seen.detections]
    return draw_boxes(seen.picture, np.array(boxes), texts)


def link(content: bytes, kind: str, name: str, text: str) -> str:
    """HTML of a link that saves a file.

    Args:
        content: Content of the file.
        kind: MIME type, such as "image/png".
        name: Name of the file.
        text: Text of the link.
    """
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return f'<a class="vithub-button" download="{html_text(name)}" href="{source}">{html_text(text)}</a> '


__all__ = ["Shown", "answer_json", "boxes_picture", "link", "map_picture", "saving_links"]
