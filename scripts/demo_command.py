"""Command `vithub demo`: serves the page on which a model explains its decisions."""

from pathlib import Path
from typing import Annotated

import typer
from vithub.scripts.printing import say


def demo(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL [MODEL]", help="a folder or Hub id; two are shown side by side")
    ],
    examples: Annotated[
        list[str] | None, typer.Option(help="pictures to choose from: files or folders (repeatable)")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; 127.0.0.1 is this machine alone")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="[default: the first free one from 7860 on]")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="show the page in the browser")] = False,
    backend: Annotated[
        str | None,
        typer.Option(help="exported form to run, such as onnx or openvino, without maps  [default: the weights]"),
    ] = None,
    space: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="do not serve: write the page as a folder for a Hub Space")
    ] = None,
) -> None:
    """Serves a page for your own images: the model's answer, and where in the image it came from."""
    if len(models) > 2:
        raise typer.BadParameter(f"one model, or two side by side, got {len(models)}")
    if space is not None and backend is not None:
        raise typer.BadParameter("--backend is for a page that is served here; a Space runs the weights")
    from vithub.data.pixels.named_images import find_images
    from vithub.hub.any_model import load_any_model
    from vithub.hub.calibration import calibration_of
    from vithub.interpretability.demo.model import DemoModel
    from vithub.interpretability.demo.page import build_page, serve_page

    pictures = find_images(examples or [])
    if space is not None:
        from vithub.interpretability.demo.space import write_space

        written = write_space(space, models, pictures)
        say(f"{written}: a Space; upload it with: hf upload USER/NAME {written} --repo-type space")
        return
    loaded = []
    for source in models:
        say(f"loading {source}", err=True)
        model, processor = load_any_model(source, backend=backend)
        loaded.append(DemoModel(Path(source).name or source, model, processor, calibration_of(model, source)))
    page = build_page(loaded, pictures)
    serve_page(page, host, port, open_browser=open_browser, announce=say)
