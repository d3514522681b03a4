"""Hostile labels and file names through cards, pages, tables in a terminal, and JSON."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from . import damaging, stock
from .calling import command
from .case import Case, Place
from .judging import CONTROLS, strict_json

AREA = "names and labels"
NAMES = {
    "a part's marker": "<!-- part use -->",
    "end of a comment": "--><!--",
    "a script": "<script>alert(1)</script>",
    "an image": "<img src=x onerror=alert(1)>",
    "a heading": "# Heading",
    "a heading on a new line": "a\n# Heading",
    "front matter": "a\n---\nlicense: evil",
    "a link": "[x](javascript:alert(1))",
    "a cell of a table": "a|b|c",
    "backticks": "```python",
    "a carriage return": "a\r\nb",
    "escape sequences": "\x1b[31mred\x1b[2J",
    "a title of the terminal": "\x1b]0;evil\x07",
    "C1 controls": "a\x9b31mb",
    "text from right to left": "\u202egnp.exe",
    "isolates": "a\u2066b\u2069",
    "line separators": "a\u2028b\u0085c",
    "5,000 letters": "x" * 5000,
    "one space": " ",
    "spaces around": " cow ",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "a formula of matplotlib": "$\\frac{1}$",
    "dollars": "$5 and $6",
    "markup of rich": "[red]cow[/red][/]",
    "a format": "%s {0} {x}",
    "a path": "../../etc/passwd",
    "a spreadsheet's formula": "=1+1",
    "YAML": "a: [b, {c: d}]",
    "a number": "1e-3",
    "null": "null",
    "a flag": "--output",
    "Japanese": "日本語",
    "an emoji": "\U0001f469\u200d\U0001f680",
    "combining accents": "e\u0301",
}


def _model(name: str, place: Place) -> None:
    """A copy of the run whose first label is hostile."""
    folder = damaging.copy(stock.run(place.shared), place.folder / "model")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": name, "1": "cat", "2": "dog"}
    config["label2id"] = {name: 0, "cat": 1, "dog": 2}
    (folder / "config.json").write_text(json.dumps(config))


def _controls(text: str) -> str | None:
    found = CONTROLS.search(text)
    return None if found is None else f"the terminal gets {unicodedata.name(found[0], repr(found[0]))} as it is"


def _terminal(place: Place) -> str:
    return command("predict", place.folder / "model", stock.photos(place.shared) / "cat" / "3.png")


def _evaluated(place: Place) -> str:
    """Refused, as the data has a label that the model does not know; the message lists those that it knows."""
    return command("evaluate", place.folder / "model", "--data", stock.photos(place.shared))


def _json(place: Place) -> Any:
    said = command("predict", place.folder / "model", stock.photos(place.shared) / "cat" / "3.png", "--json")
    (line,) = said.splitlines()
    return {entry["label"] for entry in strict_json(line)["predictions"]}


def _page(place: Place) -> str:
    command("explain", place.folder / "model", stock.photos(place.shared) / "cat" / "3.png", "--output",
            place.folder / "why", "--method", "rollout")  # fmt: skip
    strict_json((place.folder / "why" / "report.json").read_text())
    return (place.folder / "why" / "report.html").read_text()


def _in_page(name: str, page: str) -> str | None:
    for text in ("<script>alert", "<img src=x"):
        if text in page:
            return f"the page holds {text}"
    if name in ("--><!--", "<!-- part use -->") and name in page:
        return "the page holds a comment's marks"
    return None


def _table(name: str, place: Place) -> None:
    """A data set with a hostile label."""
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as Pictures

    draws = np.random.default_rng(0)
    images = [Pictures.fromarray(draws.integers(0, 80, (12, 12, 3), np.uint8) + np.uint8(80 * (n % 3)))
              for n in range(30)]  # fmt: skip
    features = Features({"image": Image(), "label": ClassLabel(names=[name, "cat", "dog"])})
    table = Dataset.from_dict({"image": images, "label": [n % 3 for n in range(30)]}, features=features)
    table.to_parquet(place.folder / "pets.parquet")
    stock.run(place.shared)


def _card(name: str, place: Place) -> tuple[str, str, Path]:
    """The card of a run on that data, and that of a run with harmless labels."""
    out = place.folder / "run"
    # the pictures are drawn where a label may be read as a formula
    with nullcontext() if "$" in name or "\\" in name else stock.no_drawing():
        stock.train(place.folder / "pets.parquet", out, {"training.epochs": 2, "training.ema_decay": 0.9})
    return (out / "README.md").read_text(), (stock.run(place.shared) / "README.md").read_text(), out


def _in_card(name: str, answer: tuple[str, str, Path]) -> str | None:
    """The card has the structure of one with harmless labels, and everything beside it has the label as it is."""
    import yaml

    card, harmless, folder = answer
    if (found := _structure(card)) != (wanted := _structure(harmless)):
        return f"Markdown makes other blocks of the card than with harmless labels: {found - wanted}, {wanted - found}"
    if _controls(card.replace("\t", "")):
        return "the card holds control characters"
    heads = [yaml.safe_load(text.split("---\n")[1]) for text in (card, harmless)]
    if heads[0].keys() != heads[1].keys():
        return f"the card's front matter has {sorted(heads[0].keys() ^ heads[1].keys())} more or less"
    metrics = strict_json((folder / "metrics.json").read_text())
    for source, labels in (
        ("config.json", set(strict_json((folder / "config.json").read_text())["label2id"])),
        ("metrics.json", {row["label"] for row in metrics["per_class"]}),
    ):
        if name not in labels:
            return f"{source} has another label: {sorted(labels)}"
    return None


def _structure(card: str) -> Counter[str]:
    """What a reader of Markdown makes of a card: its headings, rules, fences, tables, links, and HTML by its kind.

    An escaped `\\<` is text, and so is everything between backticks.
    """
    from markdown_it import MarkdownIt

    found: Counter[str] = Counter()
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.split("\n---\n", 1)[1]):
        for part in (token, *(token.children or [])):
            if part.type in ("html_block", "html_inline"):
                found.update(re.findall(r"<!--|<\w+", part.content))
            elif part.type in _BLOCKS:
                found[part.type] += 1
    return found


_BLOCKS = ("heading_open", "hr", "fence", "code_block", "table_open", "link_open", "image")


def _boxes(name: str, where: str, place: Place) -> None:
    folder = damaging.copy(stock.coco(place.shared), place.folder / "set")
    content = stock.coco_content()
    if where == "class":
        content["categories"][0]["name"] = name
    else:
        content["images"][1]["file_name"] = name
    (folder / "annotations.json").write_text(json.dumps(content))


def _checked(place: Place) -> str:
    return command("check-data", place.folder / "set" / "annotations.json")


def cases(seed: int) -> Iterator[Case]:
    """Every name at every place."""
    for what, name in NAMES.items():
        model, short = partial(_model, name), what in ("a part's marker", "escape sequences", "a new line")
        ways = {
            "predict, terminal": ("vithub predict MODEL PHOTO", _terminal, model, _controls),
            "predict, JSON": ("vithub predict MODEL PHOTO --json", _json, model, partial(_in_json, name)),
            "explain, page": ("vithub explain MODEL PHOTO", _page, model, partial(_in_page, name)),
            "evaluate, refused": ("vithub evaluate MODEL --data PHOTOS", _evaluated, model, _controls),
            "finetune, card": ("vithub finetune --data DATA", partial(_card, name), partial(_table, name),
                               partial(_in_card, name)),
            "check-data, class": ("vithub check-data SET", _checked, partial(_boxes, name, "class"), _controls),
            "check-data, file": ("vithub check-data SET", _checked, partial(_boxes, name, "file"), _controls),
        }  # fmt: skip
        for way, (call, act, prepare, right) in ways.items():
            yield Case(AREA, f"{way}: {what}", f"{call}  (label {name[:40]!r})", act, prepare, right, (), False, 60,
                       short and "finetune" not in way)  # fmt: skip


def _in_json(name: str, labels: set[str]) -> str | None:
    return None if name in labels else f"the labels are {sorted(labels)}"


__all__ = ["cases"]
