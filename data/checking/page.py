"""Report on labelled photos as one self-contained HTML page with thumbnails."""

import base64
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..boxes.faults import Fault
from ..images import BadImageError, decode_image
from ..text.html_text import html_text

if TYPE_CHECKING:
    from .report import PhotoReport

SIDE = 160  # pixels of a thumbnail
SHOWN, SUSPECTS = 12, 48  # images of a kind of fault, and of doubtful labels

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; overflow-wrap: anywhere; }
h2 b { border-radius: 4px; color: #fff; font-size: .8rem; padding: .1rem .5rem; }
b.error { background: #b3261e; } b.warning { background: #8a5a00; } b.note { background: #35618e; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figure img { max-width: 48%; height: auto; } figcaption { font-size: .85rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .9rem; }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td i { background: #35618e; display: inline-block; height: .7rem; }
"""


def report_page(report: "PhotoReport") -> str:
    """HTML page of a report: counts, classes, every kind of fault with thumbnails, and the most doubtful labels."""
    source = report.checked.source
    faults = report.checked.faults
    suspects = report.labels_by_doubt(SUSPECTS)
    shown = {kind: faults.of_kind(kind)[:SHOWN] for kind in faults.counts if kind != "likely wrong label"}
    wanted = [(fault.split, fault.row) for kind in shown.values() for fault in kind if fault.row is not None]
    wanted += [fault.other for kind in shown.values() for fault in kind if fault.other is not None]
    wanted += [(one["split"], one["row"]) for one in suspects]
    pictures = _thumbnails(report, wanted)
    sections = [_splits(report), _classes(report)]
    for entry in report.faults(0):
        if entry["kind"] in shown:
            sections.append(_section(entry, _figures(shown[entry["kind"]], pictures)))
        else:
            sections.append(_section(entry, [_suspect(one, pictures) for one in suspects if one["doubtful"]]))
    if notes := "".join(f"<li>{html_text(note)}" for note in source.notes):
        sections.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    verdict = "can be trained on" if report.usable else "must not be trained on as it is"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Check of {html_text(source.name)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>{html_text(source.name)} {verdict}</h1>\n" + "\n".join(sections) + "\n</html>\n"
    )


def _splits(report: "PhotoReport") -> str:
    head = "<tr><th>Split<th>Images<th>Unreadable<th>Classes<th>Width<th>Height<th>Modes<th>Formats"
    rows = []
    for row in report.splits():
        numbers = "".join(f'<td class="number">{row[name]}' for name in ("images", "unreadable", "classes"))
        sides = "".join(f'<td class="number">{row[side][0]} to {row[side][1]}' for side in ("width", "height"))
        counts = "".join(
            f"<td>{html_text(', '.join(f'{count} {name}' for name, count in row[what].items()))}"
            for what in ("modes", "formats")
        )
        rows.append(f"<tr><td>{html_text(row['split'])}{numbers}{sides}{counts}")
    return f"<table>{head}{''.join(rows)}</table>"


def _classes(report: "PhotoReport") -> str:
    classes = report.classes()
    splits = list(report.checked.content)
    most = max((count for one in classes for count in one["images"].values()), default=0) or 1
    head = "<tr><th>Class" + "".join(f"<th>{html_text(split)}<th>" for split in splits)
    rows = "".join(
        f"<tr><td>{html_text(one['name'])}" + "".join(_count(one["images"][split], most) for split in splits)
        for one in classes
    )
    return f"<h2>Classes</h2><table>{head}{rows}</table>"


def _count(images: int, most: int) -> str:
    """Cells of a number of images and of its bar, 8 rem long for the largest number."""
    return f'<td class="number">{images}<td><i style="width:{8 * images / most:.2f}rem"></i>'


def _section(entry: dict[str, Any], figures: list[str]) -> str:
    severity = html_text(entry["severity"])
    return (
        f'<h2><b class="{severity}">{severity}</b> {entry["count"]} x {html_text(entry["kind"])}: '
        f"{html_text(entry['what'])}</h2>\n<div class=row>\n" + "\n".join(figures) + "\n</div>"
    )


def _figures(faults: list[Fault], pictures: dict[tuple[str, int], str]) -> list[str]:
    return [
        _figure([place for place in ((fault.split, fault.row), fault.other) if place in pictures], pictures, str(fault))
        for fault in faults
    ]


def _suspect(one: dict[str, Any], pictures: dict[tuple[str, int], str]) -> str:
    text = (
        f"split {one['split']!r}, {one['place']} is {one['label']!r}; the classifier says {one['suggested']!r} and "
        f"gives the label {one['probability']:.1%}"
    )
    return _figure([(one["split"], one["row"])], pictures, text)


def _figure(places: Iterable[Any], pictures: dict[tuple[str, int], str], text: str) -> str:
    images = "".join(f'<img alt="" src="{pictures[place]}"> ' for place in places if place in pictures)
    return f"<figure>{images}<figcaption>{html_text(text)}</figcaption></figure>"


def _thumbnails(report: "PhotoReport", wanted: Iterable[tuple[str, int | None]]) -> dict[tuple[str, int], str]:
    """Thumbnails as data: URLs by split and row; images that cannot be decoded have none."""
    rows: dict[str, set[int]] = {}
    for split, row in wanted:
        if row is not None:
            rows.setdefault(split, set()).add(row)
    found = {}
    for split, numbers in rows.items():
        for row, image in report.checked.source.splits[split].images(sorted(numbers)).items():
            try:
                picture = decode_image(image, "image", SIDE)
            except BadImageError:
                continue
            picture.thumbnail((SIDE, SIDE))
            content = io.BytesIO()
            picture.save(content, "JPEG", quality=80)
            found[split, row] = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return found


__all__ = ["report_page"]
