"""Web page of `vithub demo`: predictions and explanation maps for an image, of one model or of two side by side.

The page is served on loopback, loads nothing from other hosts and sends nothing to them. Uploads are limited in bytes
and pixels, and are deleted.
"""

import logging
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...data.images import BadImageError, decode_image
from ...data.text.html_text import html_text
from ...data.text.markdown_text import markdown_text
from ...data.text.terminal_text import visible
from ..capture.subject import ExplanationError
from ..explanation.explaining import DEFAULT_METHODS
from ..explanation.methods import EXPLANATION_METHODS
from .boxes import NO_MAPS, boxes_html
from .files import PageFiles, page_files
from .model import DemoModel, Seen, View, patch_at

logger = logging.getLogger(__name__)

MAX_UPLOAD = 20 * 2**20
MAX_PIXELS = 50_000_000
SHOWN_LABELS = 5
LIKELIEST = "the likeliest"
_KEPT_SECONDS = 600
_OWN_CHOICE = -1
# Image formats that browsers can show; examples in other formats are converted to PNG.
_SHOWN = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif")
# System fonts, because gradio's default fonts are loaded from another host.
_FONTS = ("system-ui", "sans-serif")


class DemoError(ValueError):
    """The page cannot be built or served as requested; the message says why."""


def read_photo(path: str | Path | None) -> Image.Image:
    """Decodes an uploaded image.

    Args:
        path: File of the upload; None if nothing was chosen.

    Raises:
        BadImageError: The file is missing, not an image, damaged or too large; the message can be shown to the visitor.
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
    """Components of the page that belong to one model."""

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
        """Components that a map depends on, in the order of the arguments of `show`."""
        return [self.method, self.target, self.layer, self.head, self.patch]


def build_page(models: Sequence[DemoModel], examples: Sequence[str | Path] = ()) -> Any:
    """Builds the page as gradio's `Blocks`, without serving it.

    Args:
        models: One model, or two to show side by side.
        examples: Image files offered as examples.

    Raises:
        DemoError: gradio is not installed, or the number of models is not 1 or 2.
        BadImageError: An example cannot be decoded; the message names it.
    """
    if not 1 <= len(models) <= 2:
        raise DemoError(f"the page shows one model, or two side by side, got {len(models)}")
    files = page_files(_KEPT_SECONDS)  # before the import of gradio, which reads the file folder once
    gradio = _gradio()
    title = visible(" and ".join(model.name for model in models))
    shown = [_example(Path(file), files.folder) for file in examples]
    with gradio.Blocks(title=f"vithub: {title}", analytics_enabled=False) as page:
        gradio.Markdown("# Why did it decide so?\nA picture in, the answer and the places that it came from out.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=260):
                photo = gradio.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], elem_id="photo")
                chosen = [photo.input]  # `change` fires twice for an image that the browser cannot show
                if shown:
                    choices = [[str(file)] for file in shown]
                    examples_of = gradio.Examples(choices, [photo], label="Examples", examples_per_page=24)
                    chosen.append(examples_of.load_input_event.success)
                gradio.Markdown(
                    "The picture stays on this machine. It is deleted within ten minutes, and when the page ends."
                )
            panels = [_panel(gradio, model, number) for number, model in enumerate(models)]
        checked = _check(gradio, photo, chosen)
        for panel in panels:
            _connect(gradio, photo, checked, panel)
    files.watch({str(file) for file in shown})
    return page


def _example(file: Path, folder: Path) -> Path:
    """Copies an example into the page's folder, in a format that a browser can show."""
    picture = read_photo(file)
    folder = Path(tempfile.mkdtemp(prefix="example-", dir=folder))
    if file.suffix.lower() in _SHOWN:
        return Path(shutil.copyfile(file, folder / file.name))
    target = folder / f"{file.stem}.png"
    picture.save(target)
    return target


def serve_page(
    page: Any,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    open_browser: bool = False,
    announce: Callable[[str], Any] = logger.info,
) -> None:
    """Serves a page until it is interrupted or terminated; uploads are deleted at the end.

    Args:
        page: Page returned by `build_page`.
        host: Address to listen on; the default is reachable from this machine only.
        port: Port to listen on; None uses the first free one from 7860 on.
        open_browser: Whether to open the page in a browser; False by default.
        announce: Function called with a line that states the page's URL, once it is served.

    Raises:
        DemoError: The page cannot be served on this port.
    """
    gradio = _gradio()
    theme = gradio.themes.Default(font=list(_FONTS), font_mono=["monospace"])
    with _ending(page, page_files(_KEPT_SECONDS)):
        try:
            # gradio's own error messages contain paths of the server; `_answering` shows ours without them.
            _, url, _ = page.queue(api_open=False).launch(
                server_name=host, server_port=port, inbrowser=open_browser, share=False, max_file_size=MAX_UPLOAD,
                theme=theme, footer_links=[], strict_cors=True, enable_monitoring=False, show_error=False, quiet=True,
                prevent_thread_lock=True,
            )  # fmt: skip
        except OSError as error:
            raise DemoError(f"the page cannot be served on {host}:{port}: {error}") from error
        announce(f"serving on {url} until interrupted (Ctrl-C)")
        page.block_thread()


@contextmanager
def _ending(page: Any, files: PageFiles) -> Iterator[None]:
    """Handles SIGTERM like an interruption, and at the end closes the server and removes the files."""
    in_main = threading.current_thread() is threading.main_thread()
    unheard = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # another handler shuts down by itself
    if unheard:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        page.close(verbose=False)
        files.remove()
        if unheard:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise DemoError("the page needs gradio: pip install 'vithub[demo]'") from error
    return gradio


def _path(photo: dict[str, Any] | None) -> str | None:
    """File path of an image that the page sent; gradio has checked that it is an upload or an example."""
    return None if photo is None else str(photo["path"])


def _panel(gradio: Any, model: DemoModel, number: int) -> Panel:
    """Builds the column of one model, without results."""
    methods = [(method.title, method.name) for method in model.methods]
    names = [name for _, name in methods]
    names = names or [next(iter(EXPLANATION_METHODS))]  # hidden
    first = next((name for name in DEFAULT_METHODS.values() if name in names), names[0])
    layer_shown, head_shown, patch_shown = _shown_controls(model, first)
    heads = max((heads for heads, _ in model.attention_shapes), default=1)
    classifies, why_not, name = not model.is_detector, model.unexplained, f"model{number}"
    explains = classifies and why_not is None
    with gradio.Column(scale=1, min_width=320):
        gradio.Markdown(f"## {markdown_text(model.name)}")
        labels = gradio.Label(
            label="Answer",
            num_top_classes=SHOWN_LABELS,
            elem_id=f"{name}-answer",
            visible=classifies and model.has_head,
        )
        boxes = gradio.HTML(visible=model.is_detector, elem_id=f"{name}-boxes")
        overlay = gradio.Image(
            label="Where it looked", type="pil", interactive=False, buttons=["download", "fullscreen"],
            elem_id=f"{name}-overlay", visible=explains,
        )  # fmt: skip
        if why_not is not None:
            gradio.Markdown(markdown_text(why_not), elem_id=f"{name}-unexplained")
        with gradio.Group(visible=explains):
            method = gradio.Dropdown(methods or names, value=first, label="Method", elem_id=f"{name}-method")
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
    """Whether layer, head and patch can be chosen for a method."""
    options, has_attention = EXPLANATION_METHODS[method].options, bool(model.attention_shapes)
    layer, head, token = (has_attention and name in options for name in ("layer", "head", "token"))
    return layer, head, token


@contextmanager
def _answering(gradio: Any, title: str) -> Iterator[None]:
    """Shows errors to the visitor: those about the image unchanged, all others without the server's paths."""
    try:
        yield
    except (BadImageError, ExplanationError) as error:
        raise gradio.Error(html_text(str(error)), title=title, print_exception=False) from error
    except Exception:
        logger.exception("the page could not answer")
        message = "It could not be computed; the log of the page says why."
        raise gradio.Error(message, title=title, print_exception=False) from None


def _check(gradio: Any, photo: Any, chosen: Sequence[Any]) -> list[Any]:
    """Checks an image before the models get it, so that the page reports a bad image once and not in each component.

    Args:
        gradio: The imported gradio module.
        photo: Component that holds the image.
        chosen: Events after which the image has changed.

    Returns:
        Event listeners, one per event, to which later steps are attached.
    """

    def check(picture: dict[str, Any] | None) -> None:
        path = _path(picture)
        with _answering(gradio, "This picture cannot be used"):
            if path is not None:
                try:
                    read_photo(path)
                except FileNotFoundError:
                    raise BadImageError("the picture was deleted meanwhile; choose it again") from None

    # The file is decoded here and not by gradio, so that a broken file gives a clear message.
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    return [event(check, photo, None, preprocess=False, **quiet) for event in chosen]


def _connect(gradio: Any, photo: Any, checked: Sequence[Any], panel: Panel) -> None:
    """Connects the components of a column with each other and with the image."""
    model, seen = panel.model, gradio.State(None)
    nothing = (None, None, "", None, gradio.update())

    def look(
        picture: dict[str, Any] | None,
        *controls: Any,
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        path = _path(picture)
        if path is None:
            return nothing
        progress(0.1, desc="Looking")
        try:
            with _answering(gradio, "There is no answer"):
                return answered(model.look(read_photo(path)), controls, progress)
        except gradio.Error as error:  # if raised, every component of the column would show it
            gradio.Warning(error.message, title=error.title)
            return nothing

    def answered(found: Seen, controls: Sequence[Any], progress: Any) -> tuple[Any, ...]:
        if model.is_detector:
            progress(0.4, desc="Asking each query")
            without = "" if model.unexplained else NO_MAPS
            boxes = boxes_html(found.picture, found.detections, model.query_maps(found), without)
            return found, None, boxes, None, gradio.update()
        progress(0.5, desc="Explaining")
        names = [LIKELIEST, *[name for name, _ in found.scores]]
        method, _, *rest = controls
        overlay = None if model.unexplained else drawn(found, method, LIKELIEST, *rest)
        return found, dict(found.scores), "", overlay, gradio.update(choices=names, value=LIKELIEST)

    def drawn(found: Seen, method: str, target: str | None, layer: float, head: float, patch: str) -> Any:
        view = View(
            method,
            None if target in (None, LIKELIEST) else target,
            None if layer == _OWN_CHOICE else int(layer),
            None if head == _OWN_CHOICE else int(head),
            _parsed_patch(patch),
        )
        return model.overlay(found, view)

    def show(found: Seen | None, *controls: Any) -> Any:
        with _answering(gradio, "There is no such map"):
            return None if found is None else drawn(found, *controls)

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
    for one in checked:
        one.success(look, [photo, *panel.controls], answer, **quiet, show_progress="full", preprocess=False)
        one.failure(lambda: nothing, None, answer, **quiet, show_progress="hidden")
    described = [panel.about, panel.layer, panel.head, panel.patch, panel.whole]
    panel.method.change(describe, panel.method, described, **quiet, show_progress="hidden")
    changes = [panel.method.input, panel.target.input, panel.layer.change, panel.head.change, panel.patch.change]
    gradio.on(changes, show, [seen, *panel.controls], panel.overlay, **quiet, trigger_mode="always_last")
    panel.overlay.select(pick, seen, panel.patch, **quiet, show_progress="hidden")
    panel.whole.click(lambda: "", None, panel.patch, **quiet, show_progress="hidden")


def _parsed_patch(text: str | None) -> tuple[int, int] | None:
    """Parses (row, column) from typed text; None for an empty text.

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
