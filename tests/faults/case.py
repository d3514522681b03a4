"""A fault or hostile input as data: what is given, what is called, and how its outcome is told."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RIGHT, CLEAR, WRONG, TRACEBACK, LOST = "right", "clear error", "silently wrong", "traceback", "lost"
KINDS = (RIGHT, CLEAR, WRONG, TRACEBACK, LOST)
BAD = (WRONG, TRACEBACK, LOST)


class CommandError(Exception):
    """A command that ended with another exit code than 0.

    Args:
        code: Its exit code.
        text: What it wrote to stderr, or where that is empty to stdout.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"exit code {code}: {text}")
        self.code, self.text = code, text


class LostError(Exception):
    """Something that was there before a case, and is not after it."""


@dataclass
class Place:
    """Where one case happens: an empty folder, and the undamaged things that all cases share.

    Args:
        folder: Removed afterwards.
        shared: Folders that `stock` made; not to be written to.
        kept: Files and folders that a command has to leave as they are, with the hash of their content.
    """

    folder: Path
    shared: Path
    kept: dict[Path, str] = field(default_factory=dict)

    def keep(self, *paths: Path) -> None:
        """Notes the content of a person's files: changed or gone afterwards, they count as lost."""
        for path in paths:
            self.kept[path] = content_hash(path)

    def lost(self) -> list[str]:
        """Names of the kept files that are not what they were."""
        return [path.name for path, content in self.kept.items() if content_hash(path) != content]


def content_hash(path: Path) -> str:
    """Hash of a file, or of all files of a folder and their names; "missing" where there is none."""
    if not path.exists():
        return "missing"
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(bytes(file) + b"\0" + file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Case:
    """One fault or input.

    Args:
        area: Group in the table of counts.
        name: Unique within its area.
        call: What a person would type, for the list of what is found.
        act: Does it, and returns what was answered. What it raises is the outcome's error.
        prepare: Makes the damaged files first; an error here is a fault of this script.
        right: Compares an answer with the expected one; returns what is wrong with it, or None.
        names: Texts of which an error has to hold at least one: the file, field or value concerned. None takes any.
        fault: Whether it is an injected fault, not an input.
        seconds: Longest computing time before it counts as one that never answers.
        short: Whether the short form runs it.
    """

    area: str
    name: str
    call: str
    act: Callable[[Place], Any]
    prepare: Callable[[Place], None] = lambda place: None
    right: Callable[[Any], str | None] = lambda answer: None
    names: tuple[str, ...] = ()
    fault: bool = False
    seconds: float = 60.0
    short: bool = False

    @property
    def key(self) -> str:
        """Area and name."""
        return f"{self.area}: {self.name}"


@dataclass
class Outcome:
    """What came of a case.

    Args:
        kind: One of `KINDS`, or "broken" where the script itself failed.
        detail: The error's text, or what was wrong.
        seconds: Taken.
    """

    kind: str
    detail: str = ""
    seconds: float = 0.0


__all__ = [
    "BAD",
    "CLEAR",
    "KINDS",
    "LOST",
    "RIGHT",
    "TRACEBACK",
    "WRONG",
    "Case",
    "CommandError",
    "LostError",
    "Outcome",
    "Place",
    "content_hash",
]
