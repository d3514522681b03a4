"""HTML of the answers to many pictures: a summary, the pictures on which two models differ, and a card for each.

The fragment is HTML and CSS only, without scripts; names are escaped. A button's `data-picture` is the number of its
picture.
"""

import base64
from collections.abc import Sequence

from ...data.text.html_text import html_text
from ...data.text.json_text import json_text
from .answers import Agreement, Answered, agreement, answers_json
from .model import DemoModel
from .saving import link

MAX_CARDS = 200
STYLE = """
.vithub-cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr));gap:.8rem;\
list-style:none;padding:0;margin:.8rem 0}
.vithub-cards>li{margin:0;padding:.6rem;border:1px solid var(--border-color-primary);border-radius:6px;\
background:var(--block-background-fill);overflow-wrap:anywhere;display:flex;flex-direction:column;gap:.4rem}
.vithub-cards>li.differs{border-left:5px solid #d98200}
.vithub-cards>li.wrong{border-left:5px solid #c62828}
.vithub-cards img{width:100%;height:9rem;object-fit:contain;margin:0}
.vithub-cards dl{margin:0}
.vithub-cards dt{font-size:.8rem;opacity:.85}.vithub-cards dd{margin:0 0 .3rem;font-weight:600}
.vithub-summary{margin:.4rem 0}.vithub-differ{overflow-wrap:anywhere;padding:0;list-style:none}
.vithub-differ>li{margin:.3rem 0}.vithub-differ span{display:inline-block}
.vithub-save{display:flex;flex-wrap:wrap;gap:.6rem;margin:.4rem 0}
.vithub-button{display:inline-block;padding:.45rem .8rem;border:1px solid var(--border-color-primary);\
border-radius:6px;background:var(--button-secondary-background-fill);color:var(--button-secondary-text-color);\
font:inherit;text-decoration:none;cursor:pointer;overflow-wrap:anywhere}
.vithub-button:hover{background:var(--button-secondary-background-fill-hover)}
.vithub-button:focus-visible{outline:3px solid #2a7de1;outline-offset:2px}
"""


def cards_html(models: Sequence[DemoModel], answered: Sequence[Answered]) -> str:
    """HTML of the answers; empty without pictures."""
    if not answered:
        return ""
    text = json_text(answers_json(models, answered), indent=1) + "\n"
    save = link(text.encode(), "application/json", "answers.json", "Save all answers (JSON)")
    found = agreement(models, answered)
    counted = found is not None and found.why_not is None
    cards = "".join(_card(models, number, one, counted) for number, one in enumerate(answered[:MAX_CARDS]))
    rest = len(answered) - MAX_CARDS
    more = f"<p>{rest} more pictures have no card here; the JSON has all answers.</p>" if rest > 0 else ""
    summary = _summary(models, answered, found)
    return f'{summary}<p class="vithub-save">{save}</p><ul class="vithub-cards">{cards}</ul>{more}'


def _summary(models: Sequence[DemoModel], answered: Sequence[Answered], found: Agreement | None) -> str:
    wrong = sum(one.error is not None for one in answered)
    lines = [f"{len(answered) - wrong} of {_pictures(len(answered))} answered"]
    if wrong:
        lines.append(f"{wrong} could not be read, as their cards say")
    text = f'<p class="vithub-summary">{"; ".join(lines)}.</p>'
    return f'<div role="status">{text}{"" if found is None else _agreement(models, answered, found)}</div>'


def _agreement(models: Sequence[DemoModel], answered: Sequence[Answered], found: Agreement) -> str:
    if found.why_not is not None:
        return f'<p class="vithub-summary">{html_text(found.why_not[0].upper() + found.why_not[1:])}.</p>'
    if not found.pictures:
        return ""
    names, (low, high) = " and ".join(html_text(model.name) for model in models), found.interval
    line = (
        f'<p class="vithub-summary"><strong>{names} agree on {found.same} of {_pictures(found.pictures)}</strong> '
        f"({found.same / found.pictures:.0%}; 95 % interval {100 * low:.0f} to {100 * high:.0f} %).</p>"
    )
    if not found.differing:
        return line
    numbers = {id(one): number for number, one in enumerate(answered)}
    items = "".join(
        f"<li>{_button(numbers[id(one)], one.name, one.name)} "
        f"<span>{' or '.join(html_text(answer.text) for answer in one.answers)}</span></li>"
        for one in found.differing
    )
    return f'{line}<p>They differ on:</p><ul class="vithub-differ">{items}</ul>'


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _card(models: Sequence[DemoModel], number: int, one: Answered, compared: bool) -> str:
    if one.error is not None:
        return f'<li class="wrong"><strong>{html_text(one.name)}</strong><span>{html_text(one.error)}</span></li>'
    source = f"data:image/jpeg;base64,{base64.b64encode(one.thumbnail).decode()}"
    answers = "".join(
        f"<div><dt>{html_text(model.name)}</dt><dd>{html_text(answer.text)}</dd></div>"
        for model, answer in zip(models, one.answers, strict=True)
    )
    kind, mark = (' class="differs"', "<em>The models differ.</em>") if compared and one.differs else ("", "")
    return (
        f'<li{kind}><img alt="" src="{source}"><strong>{html_text(one.name)}</strong><dl>{answers}</dl>{mark}'
        f"{_button(number, 'Look closer', f'Look closer at {one.name}')}</li>"
    )


def _button(number: int, text: str, label: str) -> str:
    return (
        f'<button type="button" class="vithub-button" data-picture="{number}" aria-label="{html_text(label)}">'
        f"{html_text(text)}</button>"
    )


__all__ = ["MAX_CARDS", "STYLE", "cards_html"]
