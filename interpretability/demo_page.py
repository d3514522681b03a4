"""The page of `vithub demo`: a picture in, answers and the maps behind them out, of one model or of two side by side.

It is served on loopback, loads nothing from elsewhere and sends nothing anywhere. Uploads are limited in size and in
pixels, and are deleted.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.images import BadImageError, decode_image
from .demo_boxes import boxes_html
from .demo_model import DemoModel, Seen, View, patch_at
from .explanation_methods import EXPLANATION_METHODS
from .subject import ExplanationError

logger = logging.getLogger(__name__)

MAX_UPLOAD = 20 * 2**20
MAX_PIXELS = 50_000_000
SHOWN_LABELS = 5
LIKELIEST = "the likeliest"
_KEPT_SECONDS = 600
_OWN_CHOICE = -1
# The page's own title; gradio's fonts come from elsewhere otherwise.
_FONTS = ("system-ui", "sans-serif")


class DemoError(ValueError):
    """The page cannot be built or served as asked; the message says why."""


def read_photo(path: str | Path | None) -> Image.Image:
    """An upload as a picture.

    Raises:
        BadImageError: It is no image, is damaged, or too large; the message can be shown to who sent it.
    """
    if path is None:
        raise BadImageError("choose a picture first")
    file = Path(path)
    if file.stat().st_size > MAX_UPLOAD:
        raise BadImageError(f"{file.name}: larger than {MAX_UPLOAD // 2**20} MiB")
    try:
        with Image.open(file) as image:  # reads the header alone
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise BadImageError(f"{file.name}: not an image in a known format") from None
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{file.name}: {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million")
    return decode_image(file, file.name)


@dataclass(frozen=True)
class Panel:
    """The parts of the page that belong to one model."""

    model: DemoModel
    labels: Any
    overlay: Any
    boxes: Any
    method: Any
    about: Any
    target: Any
    layer: Any
    head: Any
    patch: Any
    whole: Any

    @property
    def controls(self) -> list[Any]:
        """What a map depends on, in the order of `show`."""
        return [self.method, self.target, self.layer, self.head, self.patch]


def build_page(models: Sequence[DemoModel], examples: Sequence[str | Path] = ()) -> Any:
    """The page, as gradio's `Blocks`, not yet served.

    Args:
        models: One, or two to be seen side by side.
        examples: Files of pictures to choose from.

    Raises:
        DemoError: gradio is missing, or no model or more than two are given.
    """
    gradio = _gradio()
    if not 1 <= len(models) <= 2:
        raise DemoError(f"the page shows one model, or two side by side, got {len(models)}")
    title = " and ".join(model.name for model in models)
    with gradio.Blocks(title=f"vithub: {title}", analytics_enabled=False, delete_cache=(60, _KEPT_SECONDS)) as page:
        gradio.Markdown("# Why did it decide so?\nA picture in, the answer and the places that it came from out.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=260):
                photo = gradio.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], elem_id="photo")
                photo.preprocess = _path  # read by us, so that a broken file gets a message that can be understood
                if examples:
                    gradio.Examples([[str(file)] for file in examples], inputs=[photo], label="Examples")
                gradio.Markdown("The picture stays on this machine and is deleted after ten minutes.")
            panels = [_panel(gradio, model, number) for number, model in enumerate(models)]
        for panel in panels:
            _connect(gradio, photo, panel)
    return page


def serve_page(
    page: Any,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    open_browser: bool = False,
    announce: Callable[[str], Any] = logger.info,
) -> None:
    """Serves a page until it is interrupted.

    Args:
        page: Of `build_page`.
        host: Address to listen on; the default is reachable from this machine alone.
        port: None takes the first free one from 7860 on.
        open_browser: Show it at once.
        announce: Called with a line that says where the page is, once it is there.

    Raises:
        DemoError: The port is taken.
    """
    gradio = _gradio()
    theme = gradio.themes.Default(font=list(_FONTS), font_mono=["monospace"])
    try:
        _, url, _ = page.queue(api_open=False).launch(
            server_name=host, server_port=port, inbrowser=open_browser, share=False, max_file_size=MAX_UPLOAD,
            theme=theme, footer_links=[], strict_cors=True, enable_monitoring=False, show_error=True, quiet=True,
            prevent_thread_lock=True,
        )  # fmt: skip
    except OSError as error:
        raise DemoError(f"the page cannot be served on {host}:{port}: {error}") from error
    announce(f"serving on {url} until interrupted (Ctrl-C)")
    page.block_thread()


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise DemoError("the page needs gradio: pip install 'vithub[demo]'") from error
    return gradio


def _path(payload: Any) -> str | None:
    return None if payload is None else str(payload.path)


def _panel(gradio: Any, model: DemoModel, number: int) -> Panel:
    """The column of one model, empty."""
    methods = [(method.title, method.name) for method in model.methods]
    first = methods[0][1]
    layer_shown, head_shown, patch_shown = _shown_controls(model, first)
    heads = max((heads for heads, _ in model.attention_shapes), default=1)
    classifies, name = not model.is_detector, f"model{number}"
    with gradio.Column(scale=1, min_width=320):
        gradio.Markdown(f"## {escape(model.name)}")
        labels = gradio.Label(
            label="Answer",
            num_top_classes=SHOWN_LABELS,
            elem_id=f"{name}-answer",
            visible=classifies and model.has_head,
        )
        boxes = gradio.HTML(visible=model.is_detector, elem_id=f"{name}-boxes")
        overlay = gradio.Image(
            label="Where it looked", type="pil", interactive=False, buttons=["download", "fullscreen"],
            elem_id=f"{name}-overlay", visible=classifies,
        )  # fmt: skip
        with gradio.Group(visible=classifies):
            method = gradio.Dropdown(methods, value=first, label="Method", elem_id=f"{name}-method")
            about = gradio.Markdown(_about(first), padding=True, elem_id=f"{name}-about")
            target = gradio.Dropdown(
                [LIKELIEST], value=LIKELIEST, label="Class to explain", elem_id=f"{name}-class", visible=model.has_head
            )
            layer = gradio.Slider(
                _OWN_CHOICE, max(len(model.attention_shapes) - 1, 0), _OWN_CHOICE, step=1, visible=layer_shown,
                label="Layer (-1: the method's own choice)", elem_id=f"{name}-layer",
            )  # fmt: skip
            head = gradio.Slider(
                _OWN_CHOICE, heads - 1, _OWN_CHOICE, step=1, visible=head_shown, label="Head (-1: the mean of all)",
                elem_id=f"{name}-head",
            )  # fmt: skip
            patch = gradio.Textbox(
                "", label="Whose view: row, column of a patch (click the picture to choose it); empty: CLS",
                placeholder="CLS", visible=patch_shown, elem_id=f"{name}-patch",
            )  # fmt: skip
            whole = gradio.Button("Back to CLS", size="sm", visible=patch_shown, elem_id=f"{name}-cls")
    return Panel(model, labels, overlay, boxes, method, about, target, layer, head, patch, whole)


def _about(method: str) -> str:
    return EXPLANATION_METHODS[method].text.replace("\n", "  \n")


def _shown_controls(model: DemoModel, method: str) -> tuple[bool, bool, bool]:
    """Whether layer, head and patch can be chosen."""
    options, has_attention = EXPLANATION_METHODS[method].options, bool(model.attention_shapes)
    layer, head, token = (has_attention and name in options for name in ("layer", "head", "token"))
    return layer, head, token


def _connect(gradio: Any, photo: Any, panel: Panel) -> None:
    """Makes the parts of a column answer to each other and to the picture."""
    model, seen = panel.model, gradio.State(None)

    def look(path: str | None, *controls: Any, progress: Any = gradio.Progress()) -> tuple[Any, ...]:  # noqa: B008
        if path is None:
            return None, None, "", None, gradio.update()
        progress(0.1, desc="Looking")
        try:
            found = model.look(read_photo(path))
        except (BadImageError, ExplanationError) as error:
            raise gradio.Error(str(error), title="This picture cannot be used", print_exception=False) from error
        if model.is_detector:
            progress(0.4, desc="Asking each query")
            return (
                found,
                None,
                boxes_html(found.picture, found.detections, model.query_maps(found)),
                None,
                gradio.update(),
            )
        progress(0.5, desc="Explaining")
        names = [LIKELIEST, *[name for name, _ in found.scores]]
        method, _, *rest = controls
        overlay = show(found, method, LIKELIEST, *rest)
        return found, dict(found.scores), "", overlay, gradio.update(choices=names, value=LIKELIEST)

    def show(found: Seen | None, method: str, target: str | None, layer: float, head: float, patch: str) -> Any:
        if found is None:
            return None
        try:
            view = View(
                method,
                None if target in (None, LIKELIEST) else target,
                None if layer == _OWN_CHOICE else int(layer),
                None if head == _OWN_CHOICE else int(head),
                _parsed_patch(patch),
            )
            return model.overlay(found, view)
        except ExplanationError as error:
            raise gradio.Error(str(error), title="There is no such map", print_exception=False) from error

    def describe(method: str) -> tuple[Any, ...]:
        layer, head, patch = (gradio.update(visible=shown) for shown in _shown_controls(model, method))
        return _about(method), layer, head, patch, patch

    def pick(found: Seen | None, event: gradio.SelectData) -> Any:
        grid = None if found is None else model.grid(found)
        if found is None or grid is None:
            return gradio.update()
        row, column = patch_at(event.index[0], event.index[1], found.picture.size, grid)
        return f"{row}, {column}"

    answer = [seen, panel.labels, panel.boxes, panel.overlay, panel.target]
    quiet = {"api_visibility": "private"}
    gradio.on([photo.change], look, [photo, *panel.controls], answer, **quiet, show_progress="full")
    described = [panel.about, panel.layer, panel.head, panel.patch, panel.whole]
    panel.method.change(describe, panel.method, described, **quiet, show_progress="hidden")
    changes = [panel.method.input, panel.target.input, panel.layer.change, panel.head.change, panel.patch.change]
    gradio.on(changes, show, [seen, *panel.controls], panel.overlay, **quiet, trigger_mode="always_last")
    panel.overlay.select(pick, seen, panel.patch, **quiet, show_progress="hidden")
    panel.whole.click(lambda: "", None, panel.patch, **quiet, show_progress="hidden")


def _parsed_patch(text: str | None) -> tuple[int, int] | None:
    """The row and column that someone typed.

    Example:
        >>> _parsed_patch("3, 11"), _parsed_patch(" ")
        ((3, 11), None)
    """
    if not (text or "").strip():
        return None
    parts = str(text).replace(",", " ").split()
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ExplanationError(f"a patch is a row and a column from 0 on, such as 3, 11; got {text!r}")
    return int(parts[0]), int(parts[1])


__all__ = ["MAX_PIXELS", "MAX_UPLOAD", "DemoError", "build_page", "read_photo", "serve_page"]
