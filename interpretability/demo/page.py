"""Web page of `vithub demo`: predictions and explanation maps for images, of one model or of two side by side.

The page is served on loopback, loads nothing from other hosts and sends nothing to them. Uploads are limited in bytes
and pixels, and are deleted.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...data.text.terminal_text import visible
from .files import PageFiles, page_files
from .model import DemoModel
from .panels import build_panel, connect_panel
from .photos import answering, browser_copy, read_photo, upload_path
from .several import several_pictures

logger = logging.getLogger(__name__)

# Largest upload, in bytes, that the server takes. gradio refuses all files of a choice if one is larger, and so this is
# more than `read_photo` accepts, which refuses each by itself.
_MAX_TRANSFER = 100 * 2**20
_KEPT_SECONDS = 600
# System fonts, because gradio's default fonts are loaded from another host.
_FONTS = ("system-ui", "sans-serif")


class DemoError(ValueError):
    """The page cannot be built or served as requested; the message says why."""


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
    shown = [browser_copy(Path(file), files.folder, "example") for file in examples]
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
            panels = [build_panel(gradio, model, number) for number, model in enumerate(models)]
        chosen.append(several_pictures(gradio, models, photo, shown, files.folder))
        checked = _check(gradio, photo, chosen)
        for panel in panels:
            connect_panel(gradio, photo, checked, panel)
    files.watch({str(file) for file in shown})
    return page


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
            # gradio's own error messages contain paths of the server; `answering` shows ours without them.
            _, url, _ = page.queue(api_open=False).launch(
                server_name=host, server_port=port, inbrowser=open_browser, share=False, max_file_size=_MAX_TRANSFER,
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
        path = upload_path(picture)
        with answering(gradio, "This picture cannot be used"):
            if path is not None:
                read_photo(path)

    # The file is decoded here and not by gradio, so that a broken file gives a clear message.
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    return [event(check, photo, None, preprocess=False, **quiet) for event in chosen]


__all__ = ["DemoError", "build_page", "serve_page"]
