"""Column of one model on the demo page: its answer, its map and the controls of the map."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...data.text.markdown_text import markdown_text
from ..capture.subject import ExplanationError
from ..explanation.explaining import DEFAULT_METHODS
from ..explanation.methods import EXPLANATION_METHODS
from .boxes import NO_MAPS, boxes_html
from .cards import STYLE
from .model import DemoModel, View, patch_at
from .photos import answering, read_photo, upload_path
from .saving import Shown, saving_links

SHOWN_LABELS = 5
LIKELIEST = "the likeliest"
_OWN_CHOICE = -1


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
    saves: Any

    @property
    def controls(self) -> list[Any]:
        """Components that a map depends on, in the order of the arguments of `show`."""
        return [self.method, self.target, self.layer, self.head, self.patch]


def build_panel(gradio: Any, model: DemoModel, number: int) -> Panel:
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
        if model.about_probabilities:
            gradio.Markdown(markdown_text(model.about_probabilities), elem_id=f"{name}-calibration")
        boxes = gradio.HTML(visible=model.is_detector, elem_id=f"{name}-boxes")
        overlay = gradio.Image(
            label="Where it looked", type="pil", interactive=False, buttons=["download", "fullscreen"],
            elem_id=f"{name}-overlay", visible=explains,
        )  # fmt: skip
        saves = gradio.HTML(elem_id=f"{name}-save", css_template=STYLE)
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
    return Panel(model, labels, overlay, boxes, method, about, target, layer, head, patch, whole, saves)


def _about(method: str) -> str:
    return EXPLANATION_METHODS[method].text.replace("\n", "  \n")


def _shown_controls(model: DemoModel, method: str) -> tuple[bool, bool, bool]:
    """Whether layer, head and patch can be chosen for a method."""
    options, has_attention = EXPLANATION_METHODS[method].options, bool(model.attention_shapes)
    layer, head, token = (has_attention and name in options for name in ("layer", "head", "token"))
    return layer, head, token


def connect_panel(gradio: Any, photo: Any, checked: Sequence[Any], panel: Panel) -> None:
    """Connects the components of a column with each other and with the image.

    Args:
        gradio: The imported gradio module.
        photo: Component that holds the image.
        checked: Events after which the image has been checked.
        panel: Components of the column.
    """
    model, state = panel.model, gradio.State(None)
    nothing = (None, None, "", None, gradio.update(), "")

    def look(
        picture: dict[str, Any] | None,
        *controls: Any,
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        path = upload_path(picture)
        if path is None:
            return nothing
        progress(0.1, desc="Looking")
        try:
            with answering(gradio, "There is no answer"):
                shown = Shown(Path(path).name, model.look(read_photo(path)))
                progress(0.4, desc="Asking each query" if model.is_detector else "Explaining")
                return (*_answer(gradio, model, shown, controls), "")
        except gradio.Error as error:  # if raised, every component of the column would show it
            gradio.Warning(error.message, title=error.title)
            return nothing

    def show(shown: Shown | None, *controls: Any) -> tuple[Any, ...]:
        with answering(gradio, "There is no such map"):
            if shown is None:
                return None, None, ""
            shown = _explained(model, shown, *controls)
            return shown, _overlay(shown), ""

    def describe(method: str) -> tuple[Any, ...]:
        layer, head, patch = (gradio.update(visible=shown) for shown in _shown_controls(model, method))
        return _about(method), layer, head, patch, patch

    def pick(shown: Shown | None, event: gradio.SelectData) -> Any:
        grid = None if shown is None else model.grid(shown.seen)
        if shown is None or grid is None:
            return gradio.update()
        row, column = patch_at(event.index[0], event.index[1], shown.seen.picture.size, grid)
        return f"{row}, {column}"

    answer = [state, panel.labels, panel.boxes, panel.overlay, panel.target, panel.saves]
    quiet = {"api_visibility": "private"}
    hidden = {**quiet, "show_progress": "hidden"}
    for one in checked:
        looked = one.success(look, [photo, *panel.controls], answer, **quiet, show_progress="full", preprocess=False)
        looked.success(partial(saving_links, model), state, panel.saves, **hidden)
        one.failure(lambda: nothing, None, answer, **hidden)
    described = [panel.about, panel.layer, panel.head, panel.patch, panel.whole]
    panel.method.change(describe, panel.method, described, **hidden)
    changes = [panel.method.input, panel.target.input, panel.layer.change, panel.head.change, panel.patch.change]
    drawn = [state, panel.overlay, panel.saves]
    redrawn = gradio.on(changes, show, [state, *panel.controls], drawn, **quiet, trigger_mode="always_last")
    redrawn.success(partial(saving_links, model), state, panel.saves, **hidden)
    panel.overlay.select(pick, state, panel.patch, **hidden)
    panel.whole.click(lambda: "", None, panel.patch, **hidden)


def _answer(gradio: Any, model: DemoModel, shown: Shown, controls: Sequence[Any]) -> tuple[Any, ...]:
    """What is shown of a picture: state, probabilities, boxes, map of the likeliest class, classes to choose from."""
    found = shown.seen
    if model.is_detector:
        without = "" if model.unexplained else NO_MAPS
        boxes = boxes_html(found.picture, found.detections, model.query_maps(found), without)
        return shown, None, boxes, None, gradio.update()
    method, _, *rest = controls
    if not model.unexplained:
        shown = _explained(model, shown, method, LIKELIEST, *rest)
    names = [LIKELIEST, *[name for name, _ in found.scores]]
    return shown, dict(found.scores), "", _overlay(shown), gradio.update(choices=names, value=LIKELIEST)


def _explained(
    model: DemoModel, shown: Shown, method: str, target: str | None, layer: float, head: float, patch: str
) -> Shown:
    """The picture with the map that the controls ask for."""
    view = View(
        method,
        None if target in (None, LIKELIEST) else target,
        None if layer == _OWN_CHOICE else int(layer),
        None if head == _OWN_CHOICE else int(head),
        _parsed_patch(patch),
    )
    return replace(shown, explanation=model.explained(shown.seen, view))


def _overlay(shown: Shown) -> Any:
    return None if shown.explanation is None else shown.explanation.overlay(shown.seen.picture)


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


__all__ = ["LIKELIEST", "SHOWN_LABELS", "Panel", "build_panel", "connect_panel"]
