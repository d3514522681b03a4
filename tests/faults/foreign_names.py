"""Class names and names of files by strangers, in reports, pages, terminals, tables and file names."""

import random
import re
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from . import damaging, stock
from .calling import command
from .case import Case, Place
from .hostile_names import _controls, _model, _table
from .judging import strict_json

AREA = "foreign names"
PIECES = (
    "<b>bold</b>", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</style>", "</td></tr></table>",
    "&lt;", "&#x202e;", "**bold**", "# Heading", "[x](javascript:alert(1))", "`code`", "|cell|", "<!-- -->",
    "\n\n---\n",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "\x9b1m", "\r", "\n", "\t", "\x08", "\u202e", "\u2066",
    "\u200f",
    "\u2028", "/", "../", "..\\", "C:\\", "~", "$HOME", "%s", "{0}", "{{ x }}", "$x$", "a" * 300, "é" * 150, "猫",
    "\U0001f408", "e\u0301", "'", '"', "\\", ":", "- ", "=1+1", "null", " ", "[red]", "[/red]",
)  # fmt: skip
DRAWN = 15
SAFE = re.compile(r"[\w.+-]+")  # names of files that the package chooses
SHORT_EVERY = 100


def _names(seed: int) -> list[str]:
    """Every piece inside a word, then several of them in one name."""
    draws = random.Random(f"{seed} names")
    alone = [f"a{piece}b" for piece in PIECES]
    drawn = ["".join(draws.sample(PIECES, draws.randint(2, 5))) + str(n) for n in range(DRAWN)]
    return list(dict.fromkeys([*alone, *drawn]))


class _Reader(HTMLParser):
    """What a browser makes of a page: its text, its elements, and attributes that run code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: set[str] = set()
        self.code: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.code += [f"{name}={value}" for name, value in attrs if name.startswith("on") or (value or "").lower()
                      .startswith("javascript:")]  # fmt: skip

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _shown(name: str) -> str:
    """The longest part of a name that any way of showing it leaves."""
    parts = re.split(r"[^\w<>()=/*#.'\"-]|[\x80-\x9f]", name)
    return max(parts, key=len)[:60]


def _in_page(page: str, harmless: str, name: str | None) -> str | None:
    read, plain = _Reader(page), _Reader(harmless)
    if read.code != plain.code:
        return f"the page runs {sorted(set(read.code) - set(plain.code))}"
    if more := read.tags - plain.tags:
        return f"the page has the elements {sorted(more)}"
    if name is not None and _shown(name) not in _flat(" ".join(read.text)):
        return f"the page does not show {_shown(name)!r}"
    if re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", page):
        return "the page holds control characters"
    return None


def _files(folder: Path) -> str | None:
    wrong = [file.name for file in folder.rglob("*") if not SAFE.fullmatch(file.name)]
    return f"files are named {wrong[:3]}" if wrong else None


def _both(name: str, place: Place) -> None:
    _model(name, place)
    _table(name, place)


def _checked(place: Place) -> Any:
    out = place.folder / "out"
    said = command("check-data", place.folder / "pets.parquet", "--output", out)

    def make(folder: Path) -> None:
        harmless = Place(folder, place.shared)
        folder.mkdir(parents=True)
        _table("bird", harmless)
        command("check-data", folder / "pets.parquet", "--output", folder / "out")

    return said, out, stock.made(place.shared, "harmless-report", make) / "out"


def _in_report(name: str, answer: Any) -> str | None:
    said, out, harmless = answer
    if not _holds(strict_json((out / "report.json").read_text()), name):
        return "report.json does not hold the name"
    pages = [(folder / "report.html").read_text() for folder in (out, harmless)]
    return _controls(said) or _files(out) or _in_page(*pages, name)


def _holds(content: Any, name: str) -> bool:
    if isinstance(content, dict):
        return name in content or any(_holds(value, name) for value in content.values())
    return any(_holds(value, name) for value in content) if isinstance(content, list) else content == name


def _evaluated(place: Place) -> Any:
    out = place.folder / "out"
    with stock.no_drawing():
        said = command("evaluate", place.folder / "model", "--data", place.folder / "pets.parquet", "--output", out)
    return said, out


def _in_metrics(name: str, answer: Any) -> str | None:
    said, out = answer
    if not _holds(strict_json((out / "metrics.json").read_text()), name):
        return "metrics.json does not hold the name"
    return _controls(said) or _files(out)


def _predicted(place: Place) -> Any:
    out = place.folder / "out"
    said = command("predict", place.folder / "model", "--data", place.folder / "pets.parquet", "--output", out)
    return said, out


def _in_parts(name: str, answer: Any) -> str | None:
    import pyarrow.parquet as pq

    said, out = answer
    texts = [
        value for file in out.glob("*.parquet") for row in pq.read_table(file).to_pylist() for value in _leaves(row)
    ]
    if name not in texts:
        return "the tables do not hold the name"
    return _controls(said) or _files(out)


def _leaves(content: Any) -> Iterator[Any]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _leaves(value)
    else:
        yield content


def _detector(name: str, place: Place) -> None:
    import json

    folder = damaging.copy(stock.detector(place.shared), place.folder / "model")
    config = json.loads((folder / "config.json").read_text())
    names = [name, *stock.CLASSES[1:]]
    config["id2label"] = {str(n): text for n, text in enumerate(names)}
    config["label2id"] = {text: n for n, text in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    stock.coco(place.shared)


def _detected(place: Place) -> Any:
    words = ("predict", place.folder / "model", stock.coco(place.shared) / "images" / "1.png", "--threshold", "0")
    return command(*words), [strict_json(line) for line in command(*words, "--json").splitlines()]


def _in_boxes(name: str, answer: Any) -> str | None:
    said, rows = answer
    labels = {value for value in _leaves(rows) if isinstance(value, str)}
    if not labels & {name, *stock.CLASSES[1:]} or any(text in labels for text in ("bird",)):
        return f"the labels are {sorted(labels)[:5]}"
    return _controls(said)


def _fits_a_file(name: str) -> bool:
    return "/" not in name and len(name.encode()) <= 200 and name.strip(". ") != ""


def _runs(name: str, place: Place) -> None:
    import shutil

    shutil.copytree(stock.run(place.shared), place.folder / "runs" / name, ignore=shutil.ignore_patterns("checkpoints"))


def _listed(place: Place) -> Any:
    return command("runs", place.folder / "runs"), command("runs", place.folder / "runs", "--json")


def _in_list(name: str, answer: Any) -> str | None:
    said, lines = answer
    rows = [strict_json(line) for line in lines.splitlines()]
    if not any(name in str(value) for value in _leaves(rows)):
        return f"the list does not hold the name: {lines[:120]!r}"
    return _controls(said)


def _photos(name: str, place: Place) -> None:
    folder = damaging.copy(stock.photos(place.shared), place.folder / "photos")
    (folder / "cat").rename(folder / name)
    for number, file in enumerate(sorted((folder / name).iterdir())):
        if number < 2:
            file.rename(file.with_name(f"{name}{number}.png"))
    stock.run(place.shared)


def _explained(name: str, place: Place) -> Any:
    out = place.folder / "why"
    file = place.folder / "photos" / name / f"{name}0.png"
    said = command("explain", stock.run(place.shared), file, "--output", out, "--method", "rollout")

    def make(folder: Path) -> None:
        plain = stock.photos(place.shared) / "cat" / "3.png"
        command("explain", stock.run(place.shared), plain, "--output", folder, "--method", "rollout")

    return said, out, stock.made(place.shared, "harmless-explanation", make)


def _in_explanation(name: str, answer: Any) -> str | None:
    said, out, harmless = answer
    strict_json((out / "report.json").read_text())
    pages = [(folder / "report.html").read_text() for folder in (out, harmless)]
    return _controls(said) or _files(out) or _in_page(*pages, None)


def _read(place: Place) -> Any:
    from vithub.data.labelled.tables import load_image_data

    return set(load_image_data(place.folder / "photos").labels.names), command("check-data", place.folder / "photos")


def _as_named(name: str, answer: Any) -> str | None:
    found, said = answer
    wanted = {"bird", "dog", name}
    return _controls(said) if found == wanted else f"the labels are {sorted(found)}"


def cases(seed: int) -> Iterator[Case]:
    """Every name at every place where it can stand."""
    number = 0
    for name in _names(seed):
        ways: dict[str, Any] = {
            "check-data, report": ("vithub check-data TABLE --output OUT", _checked, _table, _in_report),
            "evaluate, metrics": ("vithub evaluate MODEL --data TABLE --output OUT", _evaluated, _both, _in_metrics),
            "predict, tables": ("vithub predict MODEL --data TABLE --output OUT", _predicted, _both, _in_parts),
            "predict, boxes": ("vithub predict DETECTOR PHOTO", _detected, _detector, _in_boxes),
        }
        if _fits_a_file(name):
            ways |= {
                "runs, list": ("vithub runs FOLDER", _listed, _runs, _in_list),
                "explain, file": ("vithub explain MODEL PHOTO", partial(_explained, name), _photos, _in_explanation),
                "check-data, folder": ("vithub check-data PHOTOS", _read, _photos, _as_named),
            }
        for way, (call, act, prepare, right) in ways.items():
            number += 1
            yield Case(
                AREA, f"{way}: {name[:60]!r} ({number})", f"{call}  (the name {name[:40]!r})", act,
                partial(prepare, name),
                partial(right, name), (), False, 60, number % SHORT_EVERY == 0 and way != "evaluate, metrics",
            )  # fmt: skip


__all__ = ["cases"]
