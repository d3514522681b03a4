"""Checks that need all images of a data set: sizes against each other, classes, and images that are alike."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from .content import PhotoInspection, training_split
from .duplicates import Alike, alike_by_embedding, alike_by_hash, repeated

FAR = 8.0  # sides of an image against those of the others
LEAST_SIDE = 8  # pixels
FEW, UNBALANCED = 5, 10


def check_sizes(result: PhotoInspection) -> None:
    """Logs images that are far smaller or larger than the others of the data set."""
    width, height = (np.asarray(side, dtype=np.int64) for side in (result.rows.width, result.rows.height))
    if not len(width):
        return
    sides = np.minimum(width, height)
    usual = float(np.median(sides))
    for number in np.flatnonzero((sides < LEAST_SIDE) & (usual >= LEAST_SIDE) | (sides * FAR < usual)):
        result.add("small image", int(number), lambda: f"the shorter side of half of the images is {usual:g} or more",
                   f"{width[number]} x {height[number]}")  # fmt: skip
    for number in np.flatnonzero(sides > FAR * usual):
        result.add("large image", int(number), lambda: f"the shorter side of half of the images is {usual:g} or less",
                   f"{width[number]} x {height[number]}")  # fmt: skip


def check_classes(result: PhotoInspection) -> None:
    """Logs classes that are empty, rare, out of balance or alike by name, in the training split or in all."""
    names, faults = result.classes, result.faults
    train, _ = training_split(result.source)
    first = train or result.split_names[0]
    trained: Counter[str] = Counter()
    for split, content in result.content.items():
        if train is None or split == train:
            trained += content.classes
    if len(names) < 2:
        faults.add("too few classes", first, "labels", len(names), f"the only class is {names}" if names else None)
    for name in names:
        count = trained[name]
        if count == 0:
            faults.add("empty class", first, f"class {name!r}", 0)
            continue
        if count < FEW:
            faults.add("class of few", first, f"class {name!r}", count)
        for split, content in result.content.items():
            if not content.classes[name] and content.images:
                faults.add("absent class", split, f"class {name!r}", 0)
    counted = sorted((trained[name], name) for name in names if trained[name])
    if counted and counted[-1][0] >= UNBALANCED * counted[0][0]:
        (least, rare), (most, common) = counted[0], counted[-1]
        faults.add(
            "unbalanced classes", first, "images of a class", f"{least} to {most}",
            f"{common!r} has {most} and {rare!r} {least}; training.class_weights and data.sampler balance them",
        )  # fmt: skip
    for one, other in similar_names(names):
        faults.add("similar class names", first, f"class {one!r}", one, f"the class {other!r} differs only in case, "
                   "spaces or Unicode form: they are two classes unless one is renamed")  # fmt: skip


def similar_names(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that differ only in case, white space, underscores or Unicode form."""
    seen: dict[str, str] = {}
    for name in names:
        plain = "".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
        if (other := seen.setdefault(plain, name)) != name:
            yield name, other


def check_duplicates(result: PhotoInspection) -> None:
    """Logs images that are the same as, or look like, another one of their split or of another."""
    rows = result.rows
    split = np.asarray(rows.split, dtype=np.int64)
    digests = np.asarray(rows.digests, dtype=np.uint64).reshape(-1, 2)
    later, earlier = repeated(digests)
    train, divided = training_split(result.source)
    for number, first in zip(later.tolist(), earlier.tolist(), strict=True):
        _add_repeated(result, number, first, train if divided else None)
    once = np.ones(len(rows), bool)
    once[later] = False
    hashed = np.flatnonzero(once & (np.asarray(rows.hashed, dtype=np.int64) == 1))
    alike = alike_by_hash(np.asarray(rows.phash, dtype=np.uint64)[hashed], split[hashed])
    if not alike.complete:
        result.source.notes.append("there are millions of pairs of images that look alike; not all were compared")
    _add_alike(result, alike, hashed, "their perceptual hashes differ in {:g} of 64 bits")
    if result.embeddings is None:
        return
    logged = np.zeros(len(rows), bool)
    logged[hashed[alike.partner >= 0]] = True
    single = np.flatnonzero(once)
    near = alike_by_embedding(result.embeddings[single], split[single])
    near.partner[logged[single]] = -1
    near.distance = 1 - near.distance
    _add_alike(result, near, single, "the cosine of their embeddings is {:.3f}")


def _add_repeated(result: PhotoInspection, number: int, first: int, divided: str | None) -> None:
    """Logs an image with the same bytes as an earlier one.

    Args:
        result: Result of the inspection.
        number: Number of the image in `rows`.
        first: Number of the earlier image.
        divided: Name of the split that other splits will be drawn from; None where none will.
    """
    split, other_split = (result.split_names[result.rows.split[one]] for one in (number, first))

    def where() -> str:
        return f"the same file is {result.place(first)[2]} of split {other_split!r}"

    if split != other_split:
        what = ": what is tested on was trained on; remove one"
    elif split == divided:
        what = ": the split is divided into one to train on and others, which may each get one; remove one"
    else:
        what = ""
    result.add("same image twice" if what else "repeated image", number, lambda: where() + what, other=first)
    labels = {result.rows.label[number], result.rows.label[first]}
    if len(labels) == 2 and -1 not in labels:
        result.add("two labels", number, lambda: f"{where()}, where it is {result.label_text(first)!r}", other=first)


def _add_alike(result: PhotoInspection, alike: Alike, numbers: np.ndarray, how: str) -> None:
    """Logs images that look alike: across splits the one of the later split, in a split the later one of a pair.

    Args:
        result: Result of the inspection.
        alike: Nearest image of each image.
        numbers: Number in `rows` of each image in `alike`, (N,).
        how: Text that completes the message; it is formatted with the distance.
    """
    for place in np.flatnonzero(alike.partner >= 0).tolist():
        partner = int(alike.partner[place])
        number, other, across = int(numbers[place]), int(numbers[partner]), bool(alike.across[place])
        if number < other and (across or alike.partner[partner] == place):
            continue  # logged at the other image
        if across:
            kind = "near duplicate across splits"
        elif result.rows.label[number] != result.rows.label[other]:
            kind = "near duplicate with another label"
        else:
            kind = "near duplicate"
        _add_near(result, kind, number, other, how.format(alike.distance[place]))


def _add_near(result: PhotoInspection, kind: str, number: int, other: int, how: str) -> None:
    def message() -> str:
        split, _, at = result.place(other)
        return f"it looks like {at} of split {split!r}, which is {result.label_text(other)!r}: {how}"

    result.add(kind, number, message, other=other)


__all__ = ["check_classes", "check_duplicates", "check_sizes", "similar_names"]
