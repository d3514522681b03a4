"""Image files below a folder, and a count of the files there that are not read."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .images import EXTENSIONS, HEIC_EXTENSIONS, HEIC_HINT, HEIC_READABLE, shown_path

logger = logging.getLogger("vithub")

# What file managers leave behind, besides names that begin with a dot.
_LEFT_BEHIND = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_ANIMATED = ".gif"


@dataclass
class ImageFiles:
    """The files of a folder.

    Args:
        files: Images, sorted.
        ignored: Number of the other files by their extension in lower case; "" of those without one.
    """

    files: list[Path] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def images_below(folder: Path, *, deep: bool = True) -> ImageFiles:
    """The images in a folder and its subfolders, by their extensions.

    Args:
        folder: Where to look.
        deep: Whether to look into its subfolders.
    """
    found = ImageFiles()
    for file in folder.rglob("*") if deep else folder.iterdir():
        if file.name.startswith("._") or "__MACOSX" in file.parts or is_folder(file):
            continue
        if file.suffix.lower() in EXTENSIONS:
            found.files.append(file)
        elif not file.name.startswith(".") and file.name.lower() not in _LEFT_BEHIND:
            found.ignored[file.suffix.lower()] += 1
    found.files.sort()
    return found


def ignored_text(ignored: Counter[str]) -> str:
    """Numbers of files by extension, such as "40 .heic (HEIC needs pillow-heif: ...), 1 .txt"; "" of none."""
    parts = []
    for extension, count in sorted(ignored.items(), key=lambda item: (-item[1], not item[0], item[0])):
        hint = f" ({HEIC_HINT})" if extension in HEIC_EXTENSIONS and not HEIC_READABLE else ""
        parts.append(f"{count} {extension or 'without an extension'}{hint}")
    return ", ".join(parts)


def ignored_notes(
    where: str, ignored: Counter[str], stray: Iterable[Path] = (), read: Iterable[Path] = ()
) -> list[str]:
    """Sentences about files that were not read, and about animations; each is logged as a warning too.

    Args:
        where: The folder's name.
        ignored: Files that are no images, or none that can be read.
        stray: Images that belong to nothing.
        read: Images that are read, among which animations are counted.
    """
    notes = []
    if ignored:
        count = ignored.total()
        notes.append(f"{count} {'file' if count == 1 else 'files'} in {where} {'was' if count == 1 else 'were'} not "
                     f"read: {ignored_text(ignored)}")  # fmt: skip
    if outside := sorted(shown_path(file) for file in stray):
        names = ", ".join(Path(name).name for name in outside[:5]) + (" and others" if len(outside) > 5 else "")
        notes.append(f"{len(outside)} {'image' if len(outside) == 1 else 'images'} in {where} outside of the class "
                     f"folders {'was' if len(outside) == 1 else 'were'} not read: {names}")  # fmt: skip
    moving = [file for file in read if file.suffix.lower() == _ANIMATED]
    if moving:
        first = shown_path(moving[0].name)
        notes.append(f"{len(moving)} .gif {'file is' if len(moving) == 1 else 'files are'} in {where}, of which the "
                     f"first picture is read: {first}{' and others' if len(moving) > 1 else ''}")  # fmt: skip
    for note in notes:
        logger.warning(note)
    return notes


def is_file(path: Path) -> bool:
    """Whether a path is that of a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is that of a folder; a name that no folder can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


__all__ = ["ImageFiles", "ignored_notes", "ignored_text", "images_below", "is_file", "is_folder"]
