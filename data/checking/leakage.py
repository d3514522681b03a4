"""Search for the same image file in two splits before training, at a small and bounded cost.

Files are told apart by the prints that `check_readable` makes, of their sizes and last 4,096 bytes, which it reads
anyway. Only files whose prints agree are read whole, at most `MOST_READ` of them. Images that merely look alike are
found by `vithub check-data`.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..argument_names import stated_field
from ..columns import IMAGE, LABEL
from ..images import encoded_bytes, shown_path
from ..labelled.tables import ImageData
from ..sources import DataError
from .comparisons import similar_names

MOST_READ = 2000  # files that are read whole
logger = logging.getLogger("vithub")


class LeakageError(DataError):
    """The same image is in two splits, so that a model would be judged on what it was trained on."""


@dataclass
class Leaks:
    """Images that are in the data more than once.

    Args:
        across: Split and row of each image that an earlier split has too, with split and row there.
        labelled_twice: Split and row of each image that has another label elsewhere, with split and row there.
        complete: Whether all files with equal prints were read; False where there are more than `MOST_READ`.
    """

    across: list[tuple[str, int, str, int]] = field(default_factory=list)
    labelled_twice: list[tuple[str, int, str, int]] = field(default_factory=list)
    complete: bool = True


def check_leakage(images: ImageData, prints: Mapping[str, Any], on_leakage: str) -> None:
    """Checks that no image file is in two splits, and warns of images with two labels and of class names alike.

    Args:
        images: Data set, in tables; a note is added to it where splits share images and that is allowed.
        prints: Prints of each split's images, by split, as `check_readable` makes them.
        on_leakage: "error", or "warn" to go on.

    Raises:
        LeakageError: Splits share images, and `on_leakage` is "error".
    """
    for one, other in similar_names(images.labels.names):
        logger.warning("the classes %r and %r differ only in case, spaces or Unicode form", other, one)
    leaks = find_leaks(images.splits, prints)
    if leaks.labelled_twice:
        logger.warning(
            "%s: %s", _count(leaks.labelled_twice, leaks, "the same file as another image, with another label"),
            _examples(images, leaks.labelled_twice),
        )  # fmt: skip
    if not leaks.across:
        return
    found = _count(leaks.across, leaks, "the same file as one of another split")
    if on_leakage == "warn":
        images.notes.append(found)
        logger.warning("%s: %s", found, _examples(images, leaks.across))
        return
    drawn = ", ".join(sorted(images.drawn))
    why = (
        f"the training images, of which {drawn} were drawn, hold them twice"
        if drawn
        else "what is tested on was trained on"
    )
    raise LeakageError(
        f"{found}, and {why}: {_examples(images, leaks.across)}; remove them, or train all the same with "
        f"{stated_field('data.on_leakage', 'warn')}; `vithub check-data` lists them"
    )


def find_leaks(tables: Mapping[str, Any], prints: Mapping[str, Any]) -> Leaks:
    """Finds images with the same bytes.

    Args:
        tables: Splits by name, with encoded images and labels.
        prints: Prints of each split's images, by split.
    """
    found, names = Leaks(), list(tables)
    sizes = [len(prints[name]) for name in names]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    all_prints = np.concatenate([np.asarray(prints[name], dtype=np.uint64) for name in names])
    read = 0
    for group in _equal(all_prints):
        if read + len(group) > MOST_READ:
            found.complete = False
            break
        read += len(group)
        seen: dict[bytes, tuple[str, int]] = {}
        for place in group.tolist():
            number = int(np.searchsorted(starts, place, side="right")) - 1
            here = (names[number], place - int(starts[number]))
            first = seen.setdefault(_digest(tables, here), here)
            if first == here:
                continue
            if first[0] != here[0]:
                found.across.append((*here, *first))
            if _label(tables, first) != _label(tables, here):
                found.labelled_twice.append((*here, *first))
    return found


def _equal(prints: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of the images of each group with equal prints."""
    order = np.argsort(prints, kind="stable")
    ordered = prints[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True]) if len(ordered) else np.empty(0, int)
    for group in np.flatnonzero(np.diff(starts) > 1):
        if ordered[starts[group]]:
            yield order[starts[group] : starts[group + 1]]


def _digest(tables: Mapping[str, Any], place: tuple[str, int]) -> bytes:
    return hashlib.blake2b(encoded_bytes(tables[place[0]][place[1]][IMAGE]), digest_size=16).digest()


def _label(tables: Mapping[str, Any], place: tuple[str, int]) -> Any:
    label = tables[place[0]][place[1]][LABEL]
    return sorted(label) if isinstance(label, list) else label


def _count(pairs: list[tuple[str, int, str, int]], leaks: Leaks, what: str) -> str:
    least = "" if leaks.complete else "at least "
    return f"{least}{len(pairs)} {'image is' if len(pairs) == 1 else 'images are'} {what}"


def _examples(images: ImageData, pairs: list[tuple[str, int, str, int]], most: int = 3) -> str:
    shown = []
    for split, row, other, other_row in pairs[:most]:
        shown.append(f"{_named(images, split, row)} is {_named(images, other, other_row)}")
    return "; ".join(shown) + (" and others" if len(pairs) > most else "")


def _named(images: ImageData, split: str, row: int) -> str:
    path = images.splits[split][row][IMAGE].get("path")
    return f"{shown_path(path)} (row {row} of {split})" if path else f"row {row} of split {split!r}"


__all__ = ["MOST_READ", "LeakageError", "Leaks", "check_leakage", "find_leaks"]
