"""Part of the demo page for several pictures at once: their answers as cards, and how often two models agree."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .answers import Answered, answer_all
from .cards import STYLE, cards_html
from .model import DemoModel
from .photos import answering, browser_copy, upload_path

MAX_PICTURES = 1000
# A click on a button of a card, by mouse or keyboard, names its picture.
_ON_CARD = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-picture]');
  if (button) trigger('click', {picture: button.dataset.picture});
});"""


def several_pictures(
    gradio: Any, models: Sequence[DemoModel], photo: Any, examples: Sequence[Path], folder: Path
) -> Any:
    """Builds and connects the part of the page for several pictures.

    Args:
        gradio: The imported gradio module.
        models: Models of the page.
        photo: Component that holds the picture that is looked at closely.
        examples: Example pictures, which can be asked about at once.
        folder: Folder of the page's files.

    Returns:
        Event after which `photo` holds another picture, chosen from the cards.
    """
    gradio.Markdown(
        "## Several pictures\nDrop or choose many: each gets the answer"
        + (" of both models, and you see how often they agree." if len(models) == 2 else ".")
    )
    files = gradio.File(label="Pictures", file_count="multiple", type="filepath", elem_id="pictures", height=180)
    every = gradio.Button(
        f"Ask about all {len(examples)} examples", elem_id="all-examples", visible=len(examples) > 1, size="sm"
    )
    cards = gradio.HTML(elem_id="cards", css_template=STYLE, js_on_load=_ON_CARD)
    state = gradio.State([])

    def ask_uploads(
        uploads: Sequence[dict[str, Any]] | None,
        before: list[Answered],
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        return ask([str(upload_path(one)) for one in uploads or ()], before, progress)

    def ask_examples(
        before: list[Answered],
        progress: Any = gradio.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        return ask([str(one) for one in examples], before, progress)

    def ask(paths: list[str], before: list[Answered], progress: Any) -> tuple[Any, ...]:
        if len(paths) > MAX_PICTURES:
            gradio.Warning(f"The first {MAX_PICTURES} of {len(paths)} pictures are answered.", title="Many pictures")
        known = {one.path: one for one in before}
        new = [path for path in dict.fromkeys(paths[:MAX_PICTURES]) if path not in known]
        asked = answer_all(models, new, lambda done: progress((done, len(new)), desc="Looking", unit="pictures"))
        known |= {one.path: one for one in asked}
        answered = [known[path] for path in dict.fromkeys(paths[:MAX_PICTURES])]
        return answered, cards_html(models, answered)

    def choose(answered: list[Answered], event: gradio.EventData) -> str:
        number = str(event.picture)
        if not re.fullmatch(r"[0-9]{1,6}", number) or int(number) >= len(answered):
            raise gradio.Error("There is no such picture.", print_exception=False)
        with answering(gradio, "This picture cannot be shown"):
            return str(browser_copy(Path(answered[int(number)].path), folder, "closer"))

    quiet: dict[str, Any] = {"api_visibility": "private"}
    shown = {**quiet, "show_progress": "full", "show_progress_on": cards}
    files.change(ask_uploads, [files, state], [state, cards], **shown, preprocess=False, trigger_mode="always_last")
    every.click(ask_examples, state, [state, cards], **shown)
    return cards.click(choose, state, photo, **quiet).success


__all__ = ["MAX_PICTURES", "several_pictures"]
