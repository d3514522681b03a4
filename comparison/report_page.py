"""Files of a comparison: JSON for programs, Markdown for a repository, and one HTML page with embedded plots."""

import base64
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..data.text.html_text import html_text
from ..data.text.json_text import json_text
from ..data.text.markdown_text import markdown_block, markdown_code, markdown_text
from ..data.whole_files import write_whole
from ..hub.folders import TargetError
from .detection.plots import DETECTION_PICTURES
from .measurement import Measurement, Report, Section, count_of
from .report_figures import save_pictures
from .summary import LEGEND, Summary, summaries
from .verdict import CHOICE, short

TITLES = {
    "cost": "Cost", "translation": "Translation", "locality": "Locality", "robustness": "Robustness",
    "data": "Data efficiency", "coco": "COCO figures", "errors": "Errors",
}  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } .verdict h3 { margin: .6rem 0 .2rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: .85rem; margin: .5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead { background: var(--soft); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure { margin: 1rem 0; } figcaption, .note { font-size: .85rem; opacity: .8; }
.verdict { background: var(--soft); border-left: 4px solid #0072B2; padding: .5rem 1.2rem; }
code { font-size: .9em; overflow-wrap: anywhere; } summary { cursor: pointer; }
"""
Table = tuple[str, list[str], list[list[str]], list[str]]


def write_report(comparison: Report, folder: Path) -> Path:
    """Writes `report.json`, `report.md`, `report.html` and `pictures/`; returns the folder.

    Raises:
        TargetError: The folder cannot be written.
    """
    try:
        pictures = folder / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        names = [one["name"] for one in comparison.contestants]
        drawn = save_pictures(comparison.sections, names, pictures)
        drawn += save_pictures(comparison.sections, names, pictures, DETECTION_PICTURES)
        content = json_text(comparison.to_dict(), indent=1) + "\n"
        write_whole(folder / "report.json", content)
        write_whole(folder / "report.md", markdown(comparison, drawn))
        write_whole(folder / "report.html", page(comparison, drawn, pictures))
    except OSError as error:
        raise TargetError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def tables(section: Section) -> list[Table]:
    """Arranges the numbers of a section as one table per quantity: conditions in rows, contestants in columns.

    Returns:
        Caption, column heads, rows and notes of each quantity.
    """
    found: list[Table] = []
    for quantity in dict.fromkeys(one.quantity for one in section.measurements):
        rows = section.find(quantity)
        columns = list(dict.fromkeys(one.contestant for one in rows))
        varying = _varying(rows)
        cells: dict[str, dict[str, str]] = {}
        notes: list[str] = []
        for one in rows:
            label = ", ".join(f"{name} {_plain(one.at[name])}" for name in varying if name in one.at) or "-"
            if one.seed is not None and len({other.seed for other in rows}) > 1:
                label += f", seed {one.seed}"
            cells.setdefault(label, {})[one.contestant] = _cell(one)
            if one.note:
                notes.append(f"{one.contestant}: {one.note}")
        body = [[label, *(line.get(name, "") for name in columns)] for label, line in cells.items()]
        unit = "" if rows[0].unit == "1" else f" ({rows[0].unit})"
        protocols = ", ".join(dict.fromkeys(one.protocol for one in rows))
        seeds = sorted({one.seed for one in rows if one.seed is not None})
        seeded = f"; seed {', '.join(map(str, seeds))}" if seeds else ""
        found.append((f"{quantity}{unit}; {protocols}{seeded}", ["", *columns], body, list(dict.fromkeys(notes))))
    return found


def markdown(comparison: Report, drawn: Iterable[tuple[str, str, str]]) -> str:
    """Formats the report as Markdown, with plots in `pictures/` beside it."""
    drawn, about = list(drawn), comparison.about
    lines = [f"# {markdown_text(_title(comparison))}", ""]
    for table in summaries(comparison.sections, _sides(comparison)):
        heads, rows, best = summary_cells(table)
        lines += ["| " + " | ".join(map(_bar, heads)) + " |", "|---" * len(heads) + "|"]
        for row, place in zip(rows, best, strict=True):
            cells = [f"**{_bar(cell)}**" if number == place else _bar(cell) for number, cell in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", markdown_text(LEGEND), ""]
    lines += ["## Verdict", ""] if comparison.verdict_by_heading else []
    for heading, sentences in _headed(comparison):
        lines += [f"### {heading}", "", *_listed(sentences), ""]
    lines += [markdown_block(str(about.get("command")), "bash"), ""]
    if comparison.contestants:  # trainings from scratch compare no models
        lines += ["| contestant | family | library | architecture | parameters | pixels |", "|---|---|---|---|---|---|"]
    for one in comparison.contestants:
        size = " x ".join(map(str, one["image_hw"]))
        lines.append(
            f"| {_bar(one['name'])} | {_bar(one['family'])} | {_bar(one['library'])} | {_bar(one['architecture'])} | "
            f"{one['parameters']:,} | {size} |"
        )
    lines += ["", *map(markdown_text, _machine(about))]
    for section in comparison.sections:
        lines += ["", f"## {TITLES[section.name]}", "", *_listed(section.notes), ""]
        lines += [line for name, file, caption in drawn if name == section.name
                  for line in (f"![{markdown_text(caption)}](pictures/{file})", "")]  # fmt: skip
        lines += ["<details><summary>All numbers</summary>", ""]
        for caption, heads, rows, notes in tables(section):
            lines += [
                f"**{markdown_text(caption)}**",
                "",
                "| " + " | ".join(map(_bar, heads)) + " |",
                "|---" * len(heads) + "|",
            ]
            lines += ["| " + " | ".join(map(_bar, row)) + " |" for row in rows]
            lines += ["", *_listed(notes), ""]
        lines += [
            "Protocols:",
            "",
            *(f"- {markdown_code(name)}: {markdown_text(text)}" for name, text in section.protocols.items()),
            "",
            "</details>",
        ]
    return "\n".join(lines).rstrip() + "\n"


def page(comparison: Report, drawn: Iterable[tuple[str, str, str]], pictures: Path) -> str:
    """Formats the report as one self-contained HTML page."""
    drawn, about, text = list(drawn), comparison.about, html_text
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{text(_title(comparison))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{text(_title(comparison))}</h1>",
        *(_summary_table(table) for table in summaries(comparison.sections, _sides(comparison))),
        "<div class='verdict'>",
        *(
            f"<h3>{text(heading)}</h3><ul>" + "".join(f"<li>{text(line)}</li>" for line in sentences) + "</ul>"
            for heading, sentences in _headed(comparison)
        ),
        "</div>",
        f"<p><code>{text(str(about.get('command')))}</code></p>",
    ]
    heads = ["contestant", "family", "library", "architecture", "parameters", "pixels"]
    rows = [
        [one["name"], one["family"], one["library"], one["architecture"], f"{one['parameters']:,}",
         " x ".join(map(str, one["image_hw"]))]
        for one in comparison.contestants
    ]  # fmt: skip
    parts += [
        _table(heads, rows) if rows else "",
        "".join(f"<p class='note'>{text(line)}</p>" for line in _machine(about)),
    ]
    for section in comparison.sections:
        parts.append(f"<h2 id='{section.name}'>{TITLES[section.name]}</h2>")
        parts += [f"<p class='note'>{text(note)}</p>" for note in section.notes]
        for name, file, caption in drawn:
            if name == section.name:
                code = base64.b64encode((pictures / file).read_bytes()).decode("ascii")
                parts.append(
                    f"<figure><img alt='{text(caption)}' src='data:image/png;base64,{code}'>"
                    f"<figcaption>{text(caption)}</figcaption></figure>"
                )
        parts.append("<details><summary>All numbers</summary>")
        for caption, columns, body, notes in tables(section):
            parts.append(f"<h3>{text(caption)}</h3>{_table(columns, body)}")
            parts += [f"<p class='note'>{text(note)}</p>" for note in notes]
        parts.append("</details><details><summary>Protocols</summary><dl>")
        parts += [f"<dt><code>{text(name)}</code></dt><dd>{text(how)}</dd>" for name, how in section.protocols.items()]
        parts.append("</dl></details>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def summary_cells(table: Summary) -> tuple[list[str], list[list[str]], list[int | None]]:
    """Arranges a summary as text: column heads, rows, and the column of each row's better contestant."""
    rows, best = [], []
    for row in table.rows:
        unit = "" if row.unit == "1" else f" ({row.unit})"
        cells = [_cell(row.cells[name]) if name in row.cells else "" for name in table.contestants]
        rows.append([f"{row.measure}{unit}, {'up' if row.higher else 'down'}", *cells])
        best.append(None if row.best is None else 1 + table.contestants.index(row.best))
    return ["measure", *table.contestants], rows, best


def _summary_table(table: Summary) -> str:
    heads, rows, best = summary_cells(table)
    return _table(heads, rows, best) + f"<p class='note'>{html_text(LEGEND)}</p>"


def _sides(comparison: Report) -> dict[str, int]:
    return {one["name"]: one["image_hw"][0] for one in comparison.contestants}


def _headed(comparison: Report) -> list[tuple[str, list[str]]]:
    """Returns headings with their sentences, the recommendation first."""
    return sorted(comparison.verdict_by_heading.items(), key=lambda item: item[0] != CHOICE)


def _title(comparison: Report) -> str:
    names = [one["name"] for one in comparison.contestants]
    where = comparison.about.get("data")
    on = f" on {os.path.basename(str(where).rstrip('/'))}" if where else ""  # noqa: PTH119
    return (" against ".join(names) if names else "Networks from scratch") + on


def _machine(about: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in about.get("versions", {}).items())
    threads = count_of(int(about.get("threads", 0)), "thread")
    return [f"{about.get('hardware')}; {threads}; {versions}; {about.get('finished')}"]


def _varying(rows: list[Measurement]) -> list[str]:
    """Returns the conditions that distinguish the rows; sizes and image counts only if nothing else varies."""
    names = list(dict.fromkeys(name for one in rows for name in one.at))
    kept = [name for name in names if len({_plain(one.at.get(name)) for one in rows}) > 1]
    return [name for name in kept if name not in ("pixels", "images", "cell") or len(kept) == 1]


def _cell(one: Measurement) -> str:
    if one.value is None:
        return "-"
    interval = "" if one.interval is None else f" ({short(one.interval[0])} to {short(one.interval[1])})"
    return short(one.value) + interval


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(sentences: Iterable[str]) -> list[str]:
    return [f"- {markdown_text(sentence)}" for sentence in sentences]


def _bar(text: str) -> str:
    return markdown_text(text, cell=True)


def _table(heads: list[str], rows: list[list[str]], best: Sequence[int | None] | None = None) -> str:
    """Formats a table as HTML, with the column `best` of each row in bold."""
    head = "".join(f"<th>{html_text(name)}</th>" for name in heads)
    marked = best or [None] * len(rows)
    body = "".join(
        "<tr>" + "".join(f"<td>{_strong(cell, number == place)}</td>" for number, cell in enumerate(row)) + "</tr>"
        for row, place in zip(rows, marked, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _strong(cell: str, marked: bool) -> str:
    return f"<strong>{html_text(cell)}</strong>" if marked else html_text(cell)


__all__ = ["TITLES", "markdown", "page", "summary_cells", "tables", "write_report"]
