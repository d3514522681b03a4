"""Image files with claimed sizes, cut and changed at places drawn with a seed: predicted alone, sized and checked."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from . import stock
from .calling import command
from .case import Case, Place
from .drawn_damage import BYTES
from .image_files import _noise, _same, _scores
from .memory import within

AREA = "drawn images"
FORMATS = {"PNG": "a.png", "JPEG": "a.jpg", "GIF": "a.gif", "BMP": "a.bmp", "TIFF": "a.tif", "WEBP": "a.webp"}
EACH = 8  # of each format and damage
HUGE = (50_000, 65_535)  # pixels that a side claims, drawn between; formats of 32 bits also claim more
HUGER = (10**6, 2**31 - 1)
CHECKED = {"PNG"}  # formats with checksums, in which any changed byte can be told


def _sides(draws: random.Random, bits: int) -> tuple[int, int]:
    """Width and height of 50,000 pixels or more, or one of them 0."""
    low, high = HUGER if bits > 16 and draws.random() < 0.3 else HUGE
    width, height = draws.randint(low, min(high, 2**bits - 1)), draws.randint(low, min(high, 2**bits - 1))
    if draws.random() < 0.3:
        return (50_000, 50_000)
    return draws.choice(((width, height), (width, height), (0, height), (width, 0)))


def _png(draws: random.Random, content: bytes) -> bytes:
    head = struct.pack(">II", *_sides(draws, 31)) + content[24:29]
    return content[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + content[33:]


def _jpeg(draws: random.Random, content: bytes) -> bytes:
    place = content.index(b"\xff\xc0") + 5
    width, height = _sides(draws, 16)
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


def _gif(draws: random.Random, content: bytes) -> bytes:
    sides = struct.pack("<HH", *_sides(draws, 16))
    colours = 3 * 2 ** ((content[10] & 7) + 1)
    place = content.index(b",", 13 + colours) + 5  # the frame's size, besides that of the whole
    return content[:6] + sides + content[10:place] + sides + content[place + 4 :]


def _bmp(draws: random.Random, content: bytes) -> bytes:
    return content[:18] + struct.pack("<ii", *_sides(draws, 31)) + content[26:]


def _tiff(draws: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    (directory,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[directory : directory + 2])
    sides = dict(zip((256, 257), _sides(draws, 31), strict=True))
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        (tag,) = struct.unpack("<H", content[entry : entry + 2])
        if tag in sides:
            changed[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, sides[tag])
    return bytes(changed)


def _webp(draws: random.Random, content: bytes) -> bytes:
    width, height = (draws.randint(15_000, 16_384) for _ in range(2))  # 14 bits a side
    place = content.index(b"VP8L") + 9
    (bits,) = struct.unpack("<I", content[place : place + 4])
    return content[:place] + struct.pack("<I", bits >> 28 << 28 | height - 1 << 14 | width - 1) + content[place + 4 :]


CLAIMS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "PNG": _png, "JPEG": _jpeg, "GIF": _gif, "BMP": _bmp, "TIFF": _tiff, "WEBP": _webp,
}  # fmt: skip


def _whole(kind: str) -> bytes:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    return _noise(kind, **options)


def _prepare(kind: str, what: str, drawn: str, place: Place) -> None:
    stock.run(place.shared)
    draws, whole = random.Random(drawn), _whole(kind)
    content = whole
    while content == whole:
        content = (CLAIMS[kind] if what == "a claimed size" else BYTES[what])(draws, whole)
    (place.folder / "in").mkdir()
    (place.folder / "in" / FORMATS[kind]).write_bytes(content)
    (place.folder / "whole").write_bytes(whole)
    place.keep(place.folder / "in")


def _predict(kind: str, place: Place) -> Any:
    model = stock.run(place.shared)
    with within():
        found = _scores(command("predict", model, place.folder / "in" / FORMATS[kind], "--json"))
    return found, _scores(command("predict", model, place.folder / "whole", "--json"))


def _check(kind: str, place: Place) -> Any:
    """Whether the check of a data set finds the image among whole ones."""
    import json

    folder = place.folder / "set" / "images"
    folder.mkdir(parents=True)
    for name, content in (
        ("whole.png", _whole("PNG")),
        (FORMATS[kind], (place.folder / "in" / FORMATS[kind]).read_bytes()),
    ):
        (folder / name).write_bytes(content)
    images = [
        {"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(("whole.png", FORMATS[kind]))
    ]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0}
             for n in range(2)]  # fmt: skip
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (place.folder / "set" / "annotations.json").write_text(json.dumps(content))
    with within():
        command("check-data", place.folder / "set" / "annotations.json")
    return _predict(kind, place)


def _right(kind: str, what: str, answer: Any) -> str | None:
    """The answer of the whole image; where no checksum tells, any for changed bytes, but none for a claimed size."""
    if what in ("a claimed size", "cut") or kind in CHECKED:
        return _same(1e-6, answer)
    return None


def cases(seed: int) -> Iterator[Case]:
    """Every format with every damage, predicted; sizes are also claimed to the check of a data set of boxes."""
    for kind, name in FORMATS.items():
        for what in ("a claimed size", *BYTES):
            for number in range(EACH):
                checked = what in ("a claimed size", "cut") and number % 4 == 3
                drawn = f"{kind}, {what} ({number})"
                call = "vithub check-data SET" if checked else f"vithub predict RUN {name}"
                yield Case(
                    AREA, drawn, f"{call}  ({kind}: {what}, drawn)", partial(_check if checked else _predict, kind),
                    partial(_prepare, kind, what, f"{seed} {drawn}"), partial(_right, kind, what), (name,), False, 20,
                    what == "a claimed size" and number == 0,
                )  # fmt: skip


__all__ = ["cases"]
