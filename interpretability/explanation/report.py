"""Report of explanations as a folder: overlay images, one self-contained HTML page, and JSON."""

import base64
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...data.argument_names import argument
from ...data.text.html_text import html_text
from ...data.text.json_text import json_text
from .explanation import Explanation
from .figures import explanation_figure, figure_picture
from .methods import EXPLANATION_METHODS

_PAGE_WIDTH = 336  # pixels of an image in the page

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; overflow-wrap: anywhere; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
figure img { display: block; width: 100%; height: auto; } figcaption { padding: .5rem .7rem; font-size: .85rem; }
figcaption strong { display: block; font-size: .95rem; } table { border-collapse: collapse; font-size: .9rem; }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .scale { display: flex; gap: .6rem; }
.scale i { width: 12rem; height: 1rem; align-self: center;
  background: linear-gradient(90deg, #440154, #3b528b, #21918c, #5ec962, #fde725); }
"""


@dataclass
class ExplainedImage:
    """Explanations of one image in a report.

    Args:
        name: File name or URL of the image.
        picture: Image as the model saw it.
        predictions: Labels and probabilities, most likely first; empty for a detector or a model without a head.
        overlays: Overlay image by method.
        explanations: Explanation of this image alone by method.
        seconds: Computing time in seconds by method.
        skipped: Reason by method for methods that do not apply to the model.
    """

    name: str
    picture: Image.Image
    predictions: list[tuple[str, float]] = field(default_factory=list)
    overlays: dict[str, Image.Image] = field(default_factory=dict)
    explanations: dict[str, Explanation] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, explanation: Explanation, seconds: float) -> None:
        """Adds an explanation of this image, and how long it took."""
        self.explanations[explanation.method] = explanation
        self.overlays[explanation.method] = explanation.overlay(self.picture)
        self.seconds[explanation.method] = seconds


class ExplanationReport:
    """Writer of a report, one image at a time, so that only one is held in memory.

    Args:
        folder: Folder to write; it is made if it is missing.
        model: Name of the model.
        overwrite: Whether to replace an existing report; False by default.

    Raises:
        FileExistsError: The folder holds a report, and `overwrite` is False.
    """

    def __init__(self, folder: str | Path, model: str, overwrite: bool = False) -> None:
        self.folder, self.model = Path(folder), model
        self.page, self.data = self.folder / "report.html", self.folder / "report.json"
        if not overwrite and (self.page.exists() or self.data.exists()):
            raise FileExistsError(
                f"{self.folder} holds a report already; name another folder, or {argument('overwrite')}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sections: list[str] = []
        self._entries: list[dict[str, Any]] = []
        self._skipped: dict[str, str] = {}
        self._methods: dict[str, None] = {}

    def add(self, image: ExplainedImage) -> None:
        """Writes the image, and each map over it with its legend, and adds them to the page and the data."""
        stem = f"{len(self._entries) + 1:03}-{file_stem(image.name)}"
        seen = f"{stem}-seen.png"
        image.picture.save(self.folder / seen)
        explanations = []
        for method, explanation in image.explanations.items():
            file, legend = f"{stem}-{method}.png", explanation.legend()
            figure = explanation_figure([image.picture], [image.overlays[method]], [legend])
            figure_picture(figure).save(self.folder / file)
            explanations.append(
                {
                    "method": method,
                    "explains": explanation.title(),
                    "prediction": None if explanation.predictions is None else explanation.predictions[0]._asdict(),
                    "picture": file,
                    "scale": {"meaning": legend.scale, "first_colour": legend.ends[0], "last_colour": legend.ends[1]},
                    "seconds": round(image.seconds[method], 4),
                    "grid": explanation.grid[0].tolist(),
                }
            )
            self._methods[method] = None
        self._skipped |= image.skipped
        self._entries.append(
            {
                "image": image.name,
                "seen": seen,
                "explanations": explanations,
                "skipped": image.skipped,
                "predictions": [{"label": label, "score": score} for label, score in image.predictions],
            }
        )
        self._sections.append(_section(image))

    def close(self) -> Path:
        """Writes the page and the data, and returns the path of the page."""
        texts = {name: {"use": m.when, "not": m.when_not} for name, m in EXPLANATION_METHODS.items()}
        data = {
            "model": self.model,
            "methods": {name: texts[name] for name in self._methods},
            "images": self._entries,
        }
        self.data.write_text(json_text(data, indent=1) + "\n", encoding="utf-8")
        self.page.write_text(self._html(), encoding="utf-8")
        return self.page

    def _html(self) -> str:
        rows = "".join(
            f"<tr><td>{html_text(m.title)}<td>{html_text(m.scale)}<td>{html_text(m.when)}<td>{html_text(m.when_not)}"
            for m in (EXPLANATION_METHODS[name] for name in self._methods)
        )
        reasons: dict[str, list[str]] = {}
        for method, reason in self._skipped.items():
            reasons.setdefault(reason, []).append(method)
        left_out = "".join(f"<p>Left out: {html_text(', '.join(n))}. {html_text(r)}." for r, n in reasons.items())
        return (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>Explanations of {html_text(self.model)}</title>\n<style>{_STYLE}</style>\n"
            f"<h1>What {html_text(self.model)} decided by</h1>\n"
            '<p class="scale">matters less <i role="img" aria-label="from dark violet over green to yellow"></i> '
            "matters more, each map on its own scale, whose ends are stated below it\n"
            + "\n".join(self._sections)
            + f"\n<h2>The methods</h2>\n<table><tr><th>Method<th>A value is<th>Use it<th>Not\n{rows}</table>\n"
            + f"{left_out}\n</html>\n"
        )


def _section(image: ExplainedImage) -> str:
    """Section of the page for one image."""
    rows = "".join(f'<tr><td>{html_text(label)}<td class="number">{score:.1%}' for label, score in image.predictions)
    table = f"<table><tr><th>Prediction<th>Probability{rows}</table>\n" if rows else ""
    figures = [_figure(image.picture, "what the model sees", "")]
    for method, overlay in image.overlays.items():
        title, found = EXPLANATION_METHODS[method].title, image.explanations[method]
        low, high = found.legend().ends
        figures.append(_figure(overlay, title, f"{found.title()} · {image.seconds[method]:.2f} s · {low} to {high}"))
    return f"<h2>{html_text(image.name)}</h2>\n{table}<div class=row>\n" + "\n".join(figures) + "\n</div>"


def _figure(picture: Image.Image, title: str, caption: str) -> str:
    small = picture.resize((_PAGE_WIDTH, max(1, round(picture.height * _PAGE_WIDTH / picture.width))))
    content = io.BytesIO()
    small.convert("RGB").save(content, "JPEG", quality=88)
    source = base64.b64encode(content.getvalue()).decode()
    alternative = html_text(f"{title}: {caption}" if caption else title)
    return (
        f'<figure><img alt="{alternative}" src="data:image/jpeg;base64,{source}">'
        f"<figcaption><strong>{html_text(title)}</strong>{html_text(caption)}</figcaption></figure>"
    )


def file_stem(name: str) -> str:
    """Stem of a file name or URL, in characters that every file system allows, at most 60."""
    last = re.split(r"[/\\]", name.split("?")[0].rstrip("/\\"))[-1]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", last.rsplit(".", 1)[0]).strip("_")[:60] or "image"


__all__ = ["ExplainedImage", "ExplanationReport", "file_stem"]
