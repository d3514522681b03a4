"""Image files below a folder, and a count of the files there that are not read."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .images import EXTENSIONS, HEIC_EXTENSIONS, HEIC_HINT, HEIC_READABLE, shown_path

logger = logging.getLogger("vithub")

# Files that file managers leave behind, besides those whose names begin with a dot.
_LEFT_BEHIND = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_ANIMATED = ".gif"


@dataclass
class ImageFiles:
    """Files found in a folder.

    Args:
        files: Image files, sorted by path.
        ignored: Number of other files by extension in lower case; "" for files without one.
    """

    files: list[Path] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def images_below(folder: Path, *, deep: bool = True) -> ImageFiles:
    """Finds the images in a folder and its subfolders by their extensions.

    Args:
        folder: Folder to search.
        deep: Whether to search its subfolders.
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
    """Numbers of files by extension as text, such as "40 .heic (HEIC needs pillow-heif: ...), 1 .txt"; "" for none."""
    parts = []
    for extension, count in sorted(ignored.items(), key=lambda item: (-item[1], not item[0], item[0])):
        hint = f" ({HEIC_HINT})" if extension in HEIC_EXTENSIONS and not HEIC_READABLE else ""
        parts.append(f"{count} {extension or 'without an extension'}{hint}")
    return ", ".join(parts)


def ignored_notes(
    where: str, ignored: Counter[str], stray: Iterable[Path] = (), read: Iterable[Path] = ()
) -> list[str]:
    """Notes about files that were not read, and about animations; each is also logged as a warning.

    Args:
        where: Name of the folder.
        ignored: Number of files that are not images or cannot be read, by extension.
        stray: Images outside of the class folders.
        read: Images that were read; animations among them are counted.
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
    """Whether a path is an existing file; False for names that the file system does not allow."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is an existing folder; False for names that the file system does not allow."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


__all__ = ["ImageFiles", "ignored_notes", "ignored_text", "images_below", "is_file", "is_folder"]
