"""The page of `vithub demo`: a picture in, answers and the maps behind them out, of one model or of two side by side.

It is served on loopback, loads nothing from elsewhere and sends nothing anywhere. Uploads are limited in size and in
pixels, and are deleted.
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
from .boxes import boxes_html
from .files import PageFiles, page_files
from .model import DemoModel, Seen, View, patch_at

logger = logging.getLogger(__name__)

MAX_UPLOAD = 20 * 2**20
MAX_PIXELS = 50_000_000
SHOWN_LABELS = 5
LIKELIEST = "the likeliest"
_KEPT_SECONDS = 600
_OWN_CHOICE = -1
# Formats that browsers show; an example in another one is shown as PNG.
_SHOWN = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif")
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
        BadImageError: An example cannot be decoded; it is named.
    """
    if not 1 <= len(models) <= 2:
        raise DemoError(f"the page shows one model, or two side by side, got {len(models)}")
    files = page_files(_KEPT_SECONDS)  # before gradio is imported, which asks once where to keep files
    gradio = _gradio()
    title = visible(" and ".join(model.name for model in models))
    shown = [_example(Path(file), files.folder) for file in examples]
    with gradio.Blocks(title=f"vithub: {title}", analytics_enabled=False) as page:
        gradio.Markdown("# Why did it decide so?\nA picture in, the answer and the places that it came from out.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=260):
                photo = gradio.Image(label="Picture", type="filepath", sources=["upload", "clipboard"], elem_id="photo")
                chosen = [photo.input]  # `change` comes twice for a picture that the browser cannot show
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
    """A copy of an example that a browser can show."""
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
    """Serves a page until it is interrupted or terminated; then what was uploaded is gone.

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
    with _ending(page, page_files(_KEPT_SECONDS)):
        try:
            # Errors of gradio's own hold paths of the server; ours are told by `_answering`.
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
    """Ends on SIGTERM as on an interruption, and leaves neither a server nor files."""
    in_main = threading.current_thread() is threading.main_thread()
    unheard = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # else the caller ends in order
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
    """The file of a picture as the page sends it, which gradio has found to be an upload or an example."""
    return None if photo is None else str(photo["path"])


def _panel(gradio: Any, model: DemoModel, number: int) -> Panel:
    """The column of one model, empty."""
    methods = [(method.title, method.name) for method in model.methods]
    names = [name for _, name in methods]
    first = next((name for name in DEFAULT_METHODS.values() if name in names), names[0])
    layer_shown, head_shown, patch_shown = _shown_controls(model, first)
    heads = max((heads for heads, _ in model.attention_shapes), default=1)
    classifies, name = not model.is_detector, f"model{number}"
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


@contextmanager
def _answering(gradio: Any, title: str) -> Iterator[None]:
    """Tells the visitor what went wrong: what is about the picture as it is, all else without the server's paths."""
    try:
        yield
    except (BadImageError, ExplanationError) as error:
        raise gradio.Error(html_text(str(error)), title=title, print_exception=False) from error
    except Exception:
        logger.exception("the page could not answer")
        message = "It could not be computed; the log of the page says why."
        raise gradio.Error(message, title=title, print_exception=False) from None


def _check(gradio: Any, photo: Any, chosen: Sequence[Any]) -> list[Any]:
    """Looks at a picture before the models do, so that a bad one is told once and not by each part of the page.

    Args:
        gradio: The library.
        photo: Holds the picture.
        chosen: Events after which there is another one.

    Returns:
        What follows each event.
    """

    def check(picture: dict[str, Any] | None) -> None:
        path = _path(picture)
        with _answering(gradio, "This picture cannot be used"):
            if path is not None:
                try:
                    read_photo(path)
                except FileNotFoundError:
                    raise BadImageError("the picture was deleted meanwhile; choose it again") from None

    # Read by us and not by gradio, so that a broken file gets a message that can be understood.
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    return [event(check, photo, None, preprocess=False, **quiet) for event in chosen]


def _connect(gradio: Any, photo: Any, checked: Sequence[Any], panel: Panel) -> None:
    """Makes the parts of a column answer to each other and to the picture."""
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
        except gradio.Error as error:  # raised, it would be shown by every part of the column
            gradio.Warning(error.message, title=error.title)
            return nothing

    def answered(found: Seen, controls: Sequence[Any], progress: Any) -> tuple[Any, ...]:
        if model.is_detector:
            progress(0.4, desc="Asking each query")
            boxes = boxes_html(found.picture, found.detections, model.query_maps(found))
            return found, None, boxes, None, gradio.update()
        progress(0.5, desc="Explaining")
        names = [LIKELIEST, *[name for name, _ in found.scores]]
        method, _, *rest = controls
        overlay = drawn(found, method, LIKELIEST, *rest)
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
