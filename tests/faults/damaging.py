"""Ways to damage a file, by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]


def _cut(part: float) -> Damage:
    def damage(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(part * len(content))])

    return damage


def _without_last_byte(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def flip(place: int, bit: int = 6) -> Damage:
    """Flips a bit of the byte at a place, counted from the end where it is negative."""

    def damage(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[place] ^= 1 << bit
        file.write_bytes(bytes(content))

    return damage


def text(content: str | bytes) -> Damage:
    """Puts other content into the file."""

    def damage(file: Path) -> None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def with_value(path: tuple[Any, ...], value: Any) -> Damage:
    """Puts another value into a JSON file."""

    def damage(file: Path) -> None:
        content = json.loads(file.read_text())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        file.write_text(json.dumps(content))

    return damage


def without_key(path: tuple[Any, ...]) -> Damage:
    """Takes a key out of a JSON file."""

    def damage(file: Path) -> None:
        content = json.loads(file.read_text())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        file.write_text(json.dumps(content))

    return damage


# What a disk, a broken download or a wrong copy leaves of any file.
DAMAGES: dict[str, Damage] = {
    "missing": lambda file: file.unlink(),
    "empty": text(b""),
    "cut in half": _cut(0.5),
    "without its last byte": _without_last_byte,
    "zeros": _zeros,
    "random bytes": text(bytes((31 * n * n + 7 * n) % 251 for n in range(5000))),
    "a web page": text("<!DOCTYPE html><html><body>404: Not Found</body></html>"),
    "a Git LFS pointer": text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a2146" * 8 + "\nsize 112345\n"
    ),
    "a folder": _folder,
}
# JSON that is whole, but no object.
JSON_FORMS: dict[str, Damage] = {
    "null": text("null"),
    "a list": text("[]"),
    "a list of lists": text("[[1, 2], [3]]"),
    "text": text('"config"'),
    "a number": text("17"),
    "true": text("true"),
    "an empty object": text("{}"),
    "deep nesting": text("[" * 100_000),
    "not UTF-8": text(b'{"a": "\xff\xfe"}'),
    "a huge number": text('{"a": ' + "9" * 5000 + "}"),
}


def apply(damage: Damage, file: Path) -> None:
    """Damages a file, which must change by that."""
    before = file.read_bytes()
    damage(file)
    assert not file.is_file() or file.read_bytes() != before, f"{file.name} was not damaged"


def copy(source: Path, target: Path) -> Path:
    """A folder or file to damage."""
    return shutil.copytree(source, target) if source.is_dir() else Path(shutil.copy(source, target))


__all__ = ["DAMAGES", "JSON_FORMS", "Damage", "apply", "copy", "flip", "text", "with_value", "without_key"]
