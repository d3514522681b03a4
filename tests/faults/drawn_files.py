"""Seeded random damage to every kind of file that is read: bytes, and the values in them.

An answer counts as right where it is that of the whole file, or where what the file now says is as valid by its types,
so that nobody could tell. It may take `MOST_BYTES` of memory at most.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from . import box_sets, damaging, photo_tables, stock
from .calling import command
from .case import Case, CommandError, Place
from .drawn_damage import BYTES, VALUES, Change, deepened, fits
from .folder_damage import COMMANDS
from .memory import within
from .recipe_values import _same as same_value

AREA = "drawn files"
SHORT_EVERY = 150  # one of so many is in the short form


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        name: In the list of cases.
        file: Path in the stocked folder.
        stocked: Makes that folder from the shared one.
        read: What the package makes of the folder; the second argument is the case's own place.
        parse: Plain data of the file's content, by another reader than the package's where there is one; an error says
            that there is none.
        write: Content of a file with such data.
        cases: How many.
        means: Whether the damaged content means the given answer, where `fits` is not what tells.
        changes: Further damage, by name.
        without: Names of damage that nobody could tell from valid content.
        missing: Whether a value may be missing, as it has a default.
        least: Smallest number that may be meant.
        names: Words; an error has to contain one of them, besides the file's name.
        call: What a person would type.
    """

    name: str
    file: str
    stocked: Callable[[Path], Path]
    read: Callable[[Path, Place], Any]
    parse: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None
    cases: int
    call: str
    means: Callable[[bytes, Any], bool] | None = None
    changes: dict[str, Change] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    missing: bool = False
    least: float = 0
    names: tuple[str, ...] = ()

    def damages(self) -> dict[str, Change]:
        """All damage of this kind of file, by name."""
        values = {} if self.write is None else {what: partial(self._value, what) for what in VALUES}
        found = {**BYTES, **values, **self.changes}
        return {what: change for what, change in found.items() if what not in self.without}

    def _value(self, what: str, draws: random.Random, content: bytes) -> bytes:
        assert self.write is not None
        return self.write(VALUES[what](draws, self.parse(content)))


def _json_text(content: Any) -> bytes:
    return deepened(json.dumps(content, indent=1)).encode()


def _yaml_text(content: Any) -> bytes:
    import yaml

    return deepened(yaml.safe_dump(content, sort_keys=False)).encode()


def _yaml(content: bytes) -> Any:
    """Plain data of YAML, where no mapping has a key twice; 1e-3 is a number, as in JSON."""
    import re

    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(keys) != len(set(map(repr, keys))):
                raise ValueError(f"a key is there twice: {keys}")
            return super().construct_mapping(node, deep=deep)

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Strict.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return yaml.load(content.decode(), Loader=Strict)  # derived from SafeLoader


def _header(content: bytes) -> Any:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def _weights(before: bytes, header: Any) -> bytes:
    """The content of a safetensors file with another header."""
    (length,) = struct.unpack("<Q", before[:8])
    text = deepened(json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + before[8 + length :]


def _in_header(change: Change) -> Change:
    def changed(draws: random.Random, content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        return change(draws, content[: 8 + length]) + content[8 + length :]

    return changed


def _header_value(what: str) -> Change:
    return lambda draws, content: _weights(content, VALUES[what](draws, _header(content)))


def _other_kind(draws: random.Random, content: bytes) -> bytes:
    header = _header(content)
    name = draws.choice([name for name in header if name != "__metadata__"])
    header[name]["dtype"] = draws.choice(["I32", "U32", "BF16", "F64", "BOOL", "F8_E4M3", "C64", "f32", ""])
    return _weights(content, header)


def _claimed_length(draws: random.Random, content: bytes) -> bytes:
    return struct.pack("<Q", draws.choice((0, 1, 2**20, 10**8, 2**31, 2**40, 2**63, 2**64 - 1))) + content[8:]


SAFETENSORS: dict[str, Change] = {
    **{what: _in_header(change) for what, change in BYTES.items()},
    **{what: _header_value(what) for what in VALUES if what != "two values swapped"},
    "another type of number": _other_kind,
    "a claimed length": _claimed_length,
}


def _line_twice(draws: random.Random, content: bytes) -> bytes:
    """A key that a section has twice, with another value the second time."""
    lines = content.decode().splitlines()
    chosen = draws.choice([n for n, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("-")])
    key = lines[chosen].split(": ")[0]
    lines.insert(chosen + 1, f"{key}: {draws.choice(('7', 'abc', 'true'))}")
    return "\n".join([*lines, ""]).encode()


def _aliases(draws: random.Random, content: bytes) -> bytes:
    """Lists of lists that grow without bound where they are written out."""
    depth = draws.randrange(20, 60)
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, depth)]
    lines = content.decode().splitlines()
    chosen = draws.choice([n for n, line in enumerate(lines) if ": " in line and not line.startswith("#")])
    lines[chosen] = f"{lines[chosen].split(': ')[0]}: *a{depth - 1}"
    return "\n".join([*bomb, *lines, ""]).encode()


def _entities(draws: random.Random, content: bytes) -> bytes:
    depth, body = draws.randrange(5, 30), content.decode()
    lines = ['<!ENTITY e0 "lol">', *(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, depth))]
    body = body.replace("<name>", f"<name>&e{depth - 1};", 1)
    return f'<?xml version="1.0"?><!DOCTYPE annotation [{"".join(lines)}]>{body}'.encode()


def _one_long_entity(draws: random.Random, content: bytes) -> bytes:
    body = content.decode().replace("<name>", "<name>" + "&e;" * draws.randrange(1000, 20_000), 1)
    return f'<!DOCTYPE annotation [<!ENTITY e "{"x" * 50_000}">]>{body}'.encode()


def _file_entity(draws: random.Random, content: bytes) -> bytes:
    place = draws.choice(("file:///etc/passwd", "file:///dev/zero", "http://127.0.0.1:9/a", "../secret.txt"))
    kind = draws.choice(("", "% "))
    use = "%e;" if kind else ""
    body = content.decode() if kind else content.decode().replace("<name>", "<name>&e;", 1)
    return f'<!DOCTYPE annotation [<!ENTITY {kind}e SYSTEM "{place}">{use}]>{body}'.encode()


def _nested_elements(draws: random.Random, content: bytes) -> bytes:
    depth = draws.choice((1000, 10_000, 200_000))
    nested = "<object>" * depth + "</object>" * depth
    return content.replace(b"</annotation>", nested.encode() + b"</annotation>")


def _element_text(draws: random.Random, content: bytes) -> bytes:
    """Another text in an element that holds text."""
    text = content.decode()
    begins = [n + 1 for n, letter in enumerate(text[:-1]) if letter == ">" and text[n + 1] != "<"]
    begin = draws.choice(begins)
    values = ("", "nan", "inf", "-7", "1e400", "9" * 400, "x", "<a/>", "0x10", "1,5", "\u202e1", " ", "99999", "true")
    return (text[:begin] + draws.choice(values) + text[text.index("<", begin) :]).encode()


def _tree(content: bytes) -> Any:
    """The elements of an XML file as nested lists of [tag, text, children]."""
    from xml.etree import ElementTree as ET

    def plain(element: Any) -> list[Any]:
        text = (element.text or "").strip()
        try:
            value: Any = float(text)
        except ValueError:
            value = text
        return [element.tag, value, *map(plain, element)]

    return plain(ET.fromstring(content))  # of a file that the package took


def _same_tree(before: Any, after: Any) -> bool:
    """Returns True if an XML tree differs from the undamaged one in plausible texts and the number of objects only."""
    if before[0] != after[0] or not fits(before[1], after[1]) or (after[1] == "") != (before[1] == ""):
        return False
    children = [[child for child in tree[2:] if child[0] != "object"] for tree in (before, after)]
    if [child[0] for child in children[0]] != [child[0] for child in children[1]]:
        return False
    whole = next((child for child in before[2:] if child[0] == "object"), None)
    objects = [child for child in after[2:] if child[0] == "object"]
    return all(map(_same_tree, *children)) and all(whole is not None and _same_tree(whole, child) for child in objects)


def _yolo_line(draws: random.Random, content: bytes) -> bytes:
    """Another word in a line."""
    lines = [line.split() for line in content.decode().splitlines()]
    line = draws.choice(lines)
    values = ("nan", "inf", "-1", "-0.5", "1e400", "9" * 400, "x", "1.5", "0.5 0.5", "0x1", "1,5", "99", "", "true")
    line[draws.randrange(len(line))] = draws.choice(values)
    return "\n".join(" ".join(words) for words in lines).encode() + b"\n"


def _yolo_means(content: bytes, boxes: Any) -> bool:
    """Returns True if boxes equal those of `stock.SCENES`, the second image's as `labels/train/1.txt` has them."""
    wanted = []
    for scene, ((width, height), objects) in enumerate(stock.SCENES):
        if scene != 1:
            wanted += [(corners, stock.CLASSES[number]) for corners, number in objects]
            continue
        for line in content.decode().splitlines():
            number, *values = (float(word) for word in line.split())
            if len(values) == 4:
                x, y, w, h = values
                values = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]  # else a polygon
            across, down = values[::2], values[1::2]
            corners = (min(across) * width, min(down) * height, max(across) * width, max(down) * height)
            wanted.append((corners, stock.CLASSES[int(number)]))
    (found,) = boxes.values()
    return len(found) == len(wanted) and all(
        name == label and max(abs(a - b) for a, b in zip(box, corners, strict=True)) < 0.01
        for (box, name), (corners, label) in zip(found, wanted, strict=True)
    )


def _table_rows(folder: Path, place: Place) -> list[tuple[str, str]]:
    from vithub.data.image_soundness import check_readable
    from vithub.data.labelled.tables import read_labelled_tables
    from vithub.data.text.terminal_text import visible

    (file,) = (file for file in folder.iterdir() if file.stem == "table")
    try:
        read = read_labelled_tables(str(file))
        check_readable(read.tables, "error", 0.0)  # as a training does before it begins
    except ValueError as error:
        if not type(error).__module__.startswith("vithub."):
            raise
        raise CommandError(1, f"vithub: error: {visible(str(error))}") from error  # as the command writes it
    (table,) = read.tables.values()
    return [
        (row["image"]["path"] or repr(row["image"]["bytes"]), read.labels.names[row["label"]])
        for row in table.with_format(None).cast_column("image", _undecoded())
    ]


def _undecoded() -> Any:
    from datasets import Image

    return Image(decode=False)


def _csv_rows(content: bytes) -> list[tuple[str, str]]:
    import csv

    rows = list(csv.DictReader(content.decode("utf-8").splitlines(), strict=True))
    return [(row["image"], row["label"]) for row in rows]


def _csv_means(content: bytes, rows: Any) -> bool:
    return sorted((str(Path(path)), label) for path, label in _csv_rows(content)) == sorted(rows)


def _parquet_means(content: bytes, rows: Any) -> bool:
    import io

    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content)).to_pylist()
    return sorted(row["label"] for row in table) == sorted(label for _, label in rows)


def _table(kind: str, shared: Path) -> Path:
    def make(folder: Path) -> None:
        tables = photo_tables.CSV if kind == "csv" else photo_tables.PARQUET
        folder.mkdir(parents=True)
        (folder / f"table.{kind}").write_bytes(tables["whole"][0](Place(folder, shared)))

    return stock.made(shared, f"{kind}-table", make)


def _recipe(folder: Path, place: Place) -> Any:
    from vithub.training.recipe.presets import read_recipe

    return read_recipe(folder / "recipe.yaml").model_dump(mode="json")


def _recipe_means(content: bytes, recipe: Any) -> bool:
    """Whether a recipe has every value that its file states."""

    def held(stated: Any, found: Any) -> bool:
        if isinstance(stated, dict) and isinstance(found, dict):
            return all(key in found and held(value, found[key]) for key, value in stated.items())
        return same_value(stated, found)

    return held(_yaml(content), recipe)


def _answered(name: str, folder: Path, place: Place) -> Any:
    return COMMANDS[name](folder, place.folder, place.shared)


def _boxes(target: str, folder: Path, place: Place) -> Any:
    """Boxes as read for training, and that the command calls the set fit for it."""
    command("check-data", folder / target)
    return box_sets._boxes(folder / target)


def _kinds() -> list[Kind]:
    predict, load = partial(_answered, "predict"), partial(_answered, "load")
    unread: Callable[[bytes], Any] = lambda content: None  # noqa: E731
    return [
        Kind("config.json", "config.json", stock.run, predict, json.loads, _json_text, 150,
             "vithub predict FOLDER PHOTO",
             missing=True, names=("`", "label", "type")),
        Kind("preprocessor_config.json", "preprocessor_config.json", stock.run, predict, json.loads, _json_text, 100,
             "vithub predict FOLDER PHOTO", missing=True, names=("`",)),
        Kind("recipe", "recipe.yaml", stock.run, _recipe, _yaml, _yaml_text, 150,
             "vithub finetune --recipe recipe.yaml",
             _recipe_means, {"a key twice": _line_twice, "aliases": _aliases}),
        Kind("safetensors header", "model.safetensors", stock.run, load, _header, None, 150, "vithub.load(FOLDER)",
             lambda content, answer: False, SAFETENSORS, names=("tensors",)),
        Kind("CSV", "table.csv", partial(_table, "csv"), _table_rows, unread, None, 60,
             "vithub finetune --data table.csv",
             _csv_means, names=("row", "column", "label", "no such file", "image")),
        Kind("Parquet", "table.parquet", partial(_table, "parquet"), _table_rows, unread, None, 60,
             "vithub finetune --data table.parquet", _parquet_means, names=("row", "column", "label", "image")),
        Kind("COCO", "annotations.json", stock.coco, partial(_boxes, "annotations.json"), json.loads, _json_text, 140,
             "vithub check-data annotations.json", least=-1,  # a box that is a pixel beyond its image is cut
             names=("images", "annotations", "categories", ".png")),
        Kind("Pascal VOC", "Annotations/1.xml", box_sets._voc, partial(_boxes, ""), _tree, None, 120,
             "vithub check-data VOC", None,
             {"entities": _entities, "a long entity": _one_long_entity, "an entity that is a file": _file_entity,
              "nested elements": _nested_elements, "another text": _element_text, "yet another text": _element_text}),
        Kind("YOLO", "labels/train/1.txt", box_sets._yolo, partial(_boxes, ""), unread, None, 80,
             "vithub check-data YOLO", _yolo_means, {"another word": _yolo_line, "yet another word": _yolo_line}),
        Kind("YOLO's data.yaml", "data.yaml", box_sets._yolo, partial(_boxes, ""), _yaml, _yaml_text, 60,
             "vithub check-data YOLO", None, {"a key twice": _line_twice, "aliases": _aliases},
             names=("names", "train", "nc")),
    ]  # fmt: skip


@cache
def _whole(number: int, shared: Path) -> Any:
    import tempfile

    kind = _kinds()[number]
    with tempfile.TemporaryDirectory() as place:
        return kind.read(kind.stocked(shared), Place(Path(place), shared))


def _prepare(number: int, what: str, drawn: str, place: Place) -> None:
    kind = _kinds()[number]
    _whole(number, place.shared)
    folder = damaging.copy(kind.stocked(place.shared), place.folder / "given")
    content, draws = (folder / kind.file).read_bytes(), random.Random(drawn)
    changed = content
    while changed == content:
        changed = kind.damages()[what](draws, content)
    (folder / kind.file).write_bytes(changed)
    place.keep(folder)


def _act(number: int, place: Place) -> tuple[Any, Path]:
    kind = _kinds()[number]
    with within():
        return kind.read(place.folder / "given", place), place.folder / "given" / kind.file, place.shared


def _right(number: int, answer: tuple[Any, Path, Path]) -> str | None:
    found, file, shared = answer
    kind, content = _kinds()[number], file.read_bytes()
    if repr(found) == repr(_whole(number, shared)):
        return None
    try:
        if kind.means is not None:
            meant = kind.means(content, found)
        else:
            before, after = (kind.parse(text) for text in ((kind.stocked(shared) / kind.file).read_bytes(), content))
            meant = (
                _same_tree(before, after)
                if kind.parse is _tree
                else fits(before, after, missing=kind.missing, least=kind.least)
            )
    except Exception as error:  # noqa: BLE001  # another reader does not take it
        return f"answered, although {kind.file} cannot be read: {type(error).__name__}: {error}"
    return None if meant else f"answered otherwise than with a whole {kind.file}: {repr(found)[:150]}"


def cases(seed: int) -> Iterator[Case]:
    """Every kind of file, each with its damage in turn."""
    for number, kind in enumerate(_kinds()):
        damages = list(kind.damages())
        names = (Path(kind.file).name, Path(kind.file).stem, *kind.names)
        for n in range(kind.cases):
            what = damages[n % len(damages)]
            name = f"{kind.name}, {what} ({n})"
            yield Case(
                AREA, name, f"{kind.call}  ({kind.file}: {what}, drawn)", partial(_act, number),
                partial(_prepare, number, what, f"{seed} {name}"), partial(_right, number), names, False, 20,
                (n + 7 * number) % SHORT_EVERY == 0,
            )  # fmt: skip


__all__ = ["cases"]
