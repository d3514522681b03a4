"""Tables and folders of photos as people have them: wrong columns, types, encodings, and files of other kinds."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import stock
from .case import Case, Place
from .image_files import encoded, picture

AREA = "tables and folders"


def _paths(place: Place) -> list[tuple[str, str]]:
    root = stock.photos(place.shared)
    return [(str(root / name / f"{number}.png"), name) for number in range(10) for name in stock.CLASSES]


def _rows(change: Callable[[list[tuple[str, str]]], Any], head: str = "image,label", separator: str = ",") -> Any:
    """Makes the text of a CSV file with changed rows."""

    def make(place: Place) -> bytes:
        rows = _paths(place)
        changed = change(rows)
        return "\n".join([head, *(separator.join(row) for row in changed or rows), ""]).encode()

    return make


def _set(number: int, path: str | None = None, label: str | None = None) -> Callable[[list[tuple[str, str]]], None]:
    def change(rows: list[tuple[str, str]]) -> None:
        before = rows[number]
        rows[number] = (before[0] if path is None else path, before[1] if label is None else label)

    return change


def _same(rows: list[tuple[str, str]]) -> None:
    """Nothing."""


def _labels(names: dict[str, str]) -> Callable[[list[tuple[str, str]]], Any]:
    return lambda rows: [(path, names[label]) for path, label in rows]


_SAME = {name: name for name in stock.CLASSES}
_DATES = {name: f"202{number}-01-01" for number, name in enumerate(stock.CLASSES)}
# Content of a CSV file; the classes of the run where it can be trained on, or None where it must be refused.
CSV: dict[str, tuple[Callable[[Place], bytes], set[str] | None]] = {
    "whole": (_rows(_same), set(stock.CLASSES)),
    "empty": (lambda place: b"", None),
    "only its head": (lambda place: b"image,label\n", None),
    "zeros": (lambda place: bytes(300), None),
    "UTF-16": (lambda place: _rows(_same)(place).decode().encode("utf-16"), None),
    "with a byte order mark": (lambda place: b"\xef\xbb\xbf" + _rows(_same)(place), set(stock.CLASSES)),
    "Latin-1": (lambda place: _rows(_labels({**_SAME, "bird": "m\xe4"}))(place).decode().encode("latin-1"),
                None),
    "with semicolons": (_rows(_same, "image;label", ";"), None),
    "with Windows line ends": (lambda place: _rows(_same)(place).replace(b"\n", b"\r\n"), set(stock.CLASSES)),
    "an open quote": (_rows(_set(3, path='"x')), None),
    "a row of three": (_rows(lambda rows: [(*row, "x") if n == 3 else row for n, row in enumerate(rows)]), None),
    "a row of one": (_rows(lambda rows: [row[:1] if n == 3 else row for n, row in enumerate(rows)]), None),
    "without labels": (_rows(lambda rows: [(row[0],) for row in rows], "image"), None),
    "a head twice": (_rows(_same, "image,image"), None),
    "an empty head": (_rows(_same, ","), None),
    "an empty label": (_rows(_set(3, label="")), None),
    "a label of spaces": (_rows(_set(3, label="  ")), None),
    "the label NA": (_rows(_set(3, label="NA")), None),
    "one class": (_rows(_labels(dict.fromkeys(stock.CLASSES, "cat"))), None),
    "a class of one image": (_rows(_set(3, label="fox")), {*stock.CLASSES, "fox"}),
    "numbers as labels": (_rows(_labels({"bird": "3", "cat": "7", "dog": "40"})), {"3", "7", "40"}),
    "negative numbers": (_rows(_labels({"bird": "-1", "cat": "0", "dog": "1"})), {"-1", "0", "1"}),
    "floats as labels": (_rows(_labels({"bird": "0.5", "cat": "1.5", "dog": "2.5"})), None),
    "booleans as labels": (_rows(_labels({"bird": "true", "cat": "false", "dog": "true"})), {"True", "False"}),
    "dates as labels": (_rows(_labels(_DATES)), set(_DATES.values())),
    "mixed labels": (_rows(_labels({"bird": "1", "cat": "cat", "dog": "2.5"})), {"1", "cat", "2.5"}),
    "labels of 5,000 letters": (_rows(_labels({"bird": "x" * 5000, "cat": "y", "dog": "z"})), {"x" * 5000, "y", "z"}),
    "a missing image": (_rows(_set(3, path="none.png")), None),
    "an empty path": (_rows(_set(3, path="")), None),
    "a folder as image": (_rows(_set(3, path=".")), None),
    "/dev/zero as image": (_rows(_set(3, path="/dev/zero")), None),
    "/etc/passwd as image": (_rows(_set(3, path="/etc/passwd")), None),
    "a URL as image": (_rows(_set(3, path="https://127.0.0.1:9/a.png")), None),
    "a path of 5,000 letters": (_rows(_set(3, path="x" * 5000)), None),
    "a path with NUL": (_rows(_set(3, path="a\0b.png")), None),
    "numbers as images": (_rows(lambda rows: [("7", row[1]) for row in rows]), None),
    "two rows": (_rows(lambda rows: rows[:2]), None),
}  # fmt: skip


def _parquet(change: Callable[[list[Any], list[Any]], tuple[Any, Any]]) -> Callable[[Place], bytes]:
    """Makes a Parquet file of a changed column of images and one of labels, without a description of the features."""

    def make(place: Place) -> bytes:
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = _paths(place)
        images = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path, _ in rows]
        image, label = change(images, [name for _, name in rows])
        stream = io.BytesIO()
        pq.write_table(pa.table({"image": image, "label": label}), stream)
        return stream.getvalue()

    return make


def _column(values: Callable[[int], Any], kind: str | None = None) -> Any:
    import pyarrow as pa

    return pa.array([values(n) for n in range(30)], getattr(pa, kind)() if kind else None)


PARQUET: dict[str, tuple[Callable[[Place], bytes], set[str] | None]] = {
    "whole": (_parquet(lambda i, names: (i, names)), set(stock.CLASSES)),
    "cut in half": (lambda place: (c := PARQUET["whole"][0](place))[: len(c) // 2], None),
    "without its end": (lambda place: PARQUET["whole"][0](place)[:-9], None),
    "with flipped bytes": (lambda place: _flipped(PARQUET["whole"][0](place)), None),
    "images of numbers": (_parquet(lambda i, names: (_column(lambda n: n), names)), None),
    "images of lists": (_parquet(lambda i, names: (_column(lambda n: [n, n]), names)), None),
    "images of booleans": (_parquet(lambda i, names: (_column(lambda n: True), names)), None),
    "images null": (_parquet(lambda i, names: ([None] * 30, names)), None),
    "one image null": (_parquet(lambda i, names: ([*i[:3], None, *i[4:]], names)), None),
    "one image of no bytes": (_parquet(lambda i, names: ([*i[:3], {"bytes": b"", "path": "x"}, *i[4:]], names)), None),
    "one image of text": (_parquet(lambda i, names: ([*i[:3], {"bytes": b"x", "path": "x"}, *i[4:]], names)), None),
    "images of other fields": (_parquet(lambda i, names: ([{"a": 1}] * 30, names)), None),
    "images as bytes": (_parquet(lambda i, names: ([row["bytes"] for row in i], names)), set(stock.CLASSES)),
    "labels null": (_parquet(lambda i, names: (i, [None] * 30)), None),
    "one label null": (_parquet(lambda i, names: (i, [*names[:3], None, *names[4:]])), None),
    "labels of floats": (_parquet(lambda i, names: (i, _column(lambda n: n % 3 + 0.5))), None),
    "labels of NaN": (_parquet(lambda i, names: (i, _column(lambda n: float("nan")))), None),
    "labels of booleans": (_parquet(lambda i, names: (i, _column(lambda n: n % 2 == 0))), {"True", "False"}),
    "labels of numbers": (_parquet(lambda i, names: (i, _column(lambda n: n % 3 * 5))), {"0", "5", "10"}),
    "labels of 2**40": (_parquet(lambda i, names: (i, _column(lambda n: 2**40 + n % 3))),
                        {str(2**40 + n) for n in range(3)}),
    "labels of bytes": (_parquet(lambda i, names: (i, [name.encode() for name in names])), None),
    "labels of objects": (_parquet(lambda i, names: (i, [{"name": name} for name in names])), None),
    "labels of dates": (_parquet(lambda i, names: (i, _column(lambda n: n, "date32"))), None),
    "labels all different": (_parquet(lambda i, names: (i, [f"{n}" for n in range(30)])), None),
    "no rows": (_parquet(lambda i, names: (i[:0], names[:0])), None),
}  # fmt: skip


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    for place in range(200, 3000, 7):
        changed[place] ^= 0x55
    return bytes(changed)


def _train(name: str, place: Place) -> tuple[set[str], str]:
    """Labels of a run on the data, and all that was told."""
    import json

    with stock.no_drawing():
        said = stock.train(place.folder / name, place.folder / "run", {"training.epochs": 1})
    labels = set(json.loads((place.folder / "run" / "config.json").read_text())["label2id"])
    return labels, said


def _labelled(wanted: set[str] | None, answer: tuple[set[str], str]) -> str | None:
    if wanted is None:
        return f"trained, with the labels {sorted(name[:20] for name in answer[0])}"
    return None if answer[0] == wanted else f"the labels are {sorted(name[:20] for name in answer[0])}"


def _write(name: str, make: Callable[[Place], bytes], place: Place) -> None:
    stock.photos(place.shared)
    (place.folder / name).write_bytes(make(place))
    place.keep(place.folder / name)


def _photos(place: Place) -> Path:
    import shutil

    return Path(shutil.copytree(stock.photos(place.shared), place.folder / "photos"))


def _heic(count: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for number in range(count):
            (folder / "cat" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))

    return change


def _only_heic(folder: Path) -> None:
    (folder / "fox").mkdir()
    for number in range(5):
        (folder / "fox" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))


def _loop(folder: Path) -> None:
    (folder / "cat" / "more").symlink_to(folder, target_is_directory=True)


def _file(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def _renamed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "cat").rename(folder / name)

    return change


# Changes of a folder of photos; the labels where it can be trained on, and a text that must be told, in an answer or
# in an error.
FOLDERS: dict[str, tuple[Callable[[Path], None], set[str] | None, str]] = {
    "20 HEIC files beside": (_heic(20), set(stock.CLASSES), "heic"),
    "a class of HEIC files only": (_only_heic, None, "fox"),
    "an empty class": (lambda folder: (folder / "fox").mkdir(), None, "fox"),
    "a class of text files": (_file("fox/notes.txt", b"x"), None, "fox"),
    "a stray GIF": (_file("cat/a.gif", encoded("GIF", picture("P"))), set(stock.CLASSES), ""),
    "a file beside the classes": (_file("photo.png", encoded()), set(stock.CLASSES), ""),
    "Thumbs.db and .DS_Store": (_file("cat/Thumbs.db", b"x"), set(stock.CLASSES), ""),
    "a loop of links": (_loop, set(stock.CLASSES), ""),
    "a broken link": (lambda folder: (folder / "cat" / "z.png").symlink_to(folder / "none.png"), None, "z.png"),
    "a folder named like an image": (lambda folder: (folder / "cat" / "z.png").mkdir(), set(stock.CLASSES), ""),
    "a class in Cyrillic": (_renamed("кошка"), {"bird", "dog", "кошка"}, ""),
    "a class with a newline": (_renamed("c\nt"), {"bird", "dog", "c\nt"}, ""),
    "a class that is not UTF-8": (_renamed("c\udcfft"), None, "c"),
    "a class with an escape": (_renamed("c\x1b[31mt"), {"bird", "dog", "c\x1b[31mt"}, ""),
    "a class named test": (_renamed("test"), None, "test"),
    "a class that begins with a point": (_renamed(".cat"), {"bird", "dog"}, ""),
}


SHORT = ("an open quote", "labels of floats", "a label of spaces", "images of numbers", "images of lists")


def _changed(change: Callable[[Path], None], place: Place) -> None:
    folder = _photos(place)
    change(folder)


def _told(wanted: set[str] | None, text: str, answer: tuple[set[str], str]) -> str | None:
    if text and text not in answer[1].lower():
        return f"trained without a word of {text}"
    return _labelled(wanted, answer)


def cases(seed: int) -> Iterator[Case]:
    """CSV, Parquet, then folders."""
    for kind, tables in (("csv", CSV), ("parquet", PARQUET)):
        for what, (make, wanted) in tables.items():
            name = f"table.{kind}"
            yield Case(
                AREA, f"{kind} {what}", f"vithub finetune --data {name}  ({what})", partial(_train, name),
                partial(_write, name, make), partial(_labelled, wanted),
                (name, "label", "image", "row ", "class", "column", "no such file"), False, 60,
                what in SHORT,
            )  # fmt: skip
    for what, (change, wanted, text) in FOLDERS.items():
        yield Case(
            AREA, f"folder with {what}", f"vithub finetune --data PHOTOS  ({what})", partial(_train, "photos"),
            partial(_changed, change), partial(_told, wanted, text), (text, text.upper()) if text else (), False, 60,
            what == "an empty class",
        )  # fmt: skip


__all__ = ["cases"]
