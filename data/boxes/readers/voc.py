"""Reader of boxes in Pascal VOC's XML format, one file per image (Everingham et al. 2010).

Coordinates of VOC count from 1 and include the last pixel, so that `xmin - 1, ymin - 1, xmax, ymax` are corners. Tools
that write the same files often count from 0: where any `xmin` or `ymin` is below 1, coordinates are not changed.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from ...image_files import is_file, is_folder
from ...images import EXTENSIONS, shown_path
from ...sources import DataError, read_lines
from ...splits import split_role
from ..formats import BoxFormat
from ..rows import RawBoxes, RawBoxSplit, RawImage, RawObject

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _PlainTree(ET.TreeBuilder):
    """Tree builder that refuses document types, which could define entities that grow without bound."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:  # noqa: ARG002
        """Raises a `ValueError`, because annotations need no document type."""
        raise ValueError(f"a document type ({name}) is not allowed in annotations")


def read_voc(folder: Path) -> RawBoxes:
    """Reads the boxes of the XML files below a folder.

    Splits are those of `ImageSets/Main`, or folders such as `train` and `valid`; classes are sorted by name.

    Raises:
        DataError: A file cannot be read, or a list names an image without annotations.
    """
    files = sorted(file for file in folder.rglob("*.xml") if not file.name.startswith("."))
    by_split = _listed(folder, files) or _by_folder(folder, files)
    splits: dict[str, list[RawImage]] = {}
    names: set[str] = set()
    for split, own in by_split.items():
        splits[split] = [_image(file, folder) for file in own]
        names |= {item.category for image in splits[split] for item in image.objects if _is_name(item.category)}
    notes = []
    numbers = [
        value for images in splits.values() for image in images for item in image.objects for value in item.box[:2]
        if isinstance(value, float)
    ]  # fmt: skip
    if numbers and min(numbers) >= 1:
        notes.append("coordinates count from 1, as those of Pascal VOC do: 1 was taken off xmin and ymin")
        splits = {split: [_from_zero(image) for image in images] for split, images in splits.items()}
    if left_out := _without_annotations(splits, files):
        first = left_out[0]
        notes.append(
            f"{len(left_out)} image{'' if len(left_out) == 1 else 's'} without an annotation file left out, such as "
            f"{shown_path(first.relative_to(folder) if first.is_relative_to(folder) else first)}, which lacks "
            f"{shown_path(first.with_suffix('.xml').name)}"
        )
    categories = {name: name for name in sorted(names)}
    found = {split: RawBoxSplit(images) for split, images in splits.items()}
    return RawBoxes(shown_path(folder.name), "Pascal VOC", found, categories, BoxFormat("xyxy", "pixels"), notes)


def _listed(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    by_stem = {file.stem: file for file in files}
    found: dict[str, list[Path]] = {}
    for listing in sorted(folder.rglob("ImageSets/Main/*.txt")):
        split = "train" if listing.stem == "trainval" else listing.stem
        if split not in ("train", "val", "test") or (
            listing.stem == "trainval" and listing.with_stem("train").is_file()
        ):
            continue
        stems = [line.split()[0] for line in read_lines(listing)]
        if missing := [stem for stem in stems if stem not in by_stem]:
            raise DataError(f"{listing} names {missing[0]!r}, which has no annotation file below {folder}")
        found[split] = [by_stem[stem] for stem in stems]
    return found


def _by_folder(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        roles = [split_role(part, whole=True) for part in file.relative_to(folder).parts[:-1]]
        found.setdefault(next((role for role in roles if role), "all"), []).append(file)
    return found


def _tree(file: Path) -> Any:
    try:
        parser = ET.XMLParser(target=_PlainTree())  # noqa: S314  # see _PlainTree
        parser.feed(file.read_bytes())
        return parser.close()
    except (OSError, ValueError, LookupError, ET.ParseError) as error:  # LookupError: unknown encoding
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def _image(file: Path, root: Path) -> RawImage:
    tree = _tree(file)
    place = shown_path(file.relative_to(root))
    objects = []
    for number, item in enumerate(tree.findall("object")):
        box = item.find("bndbox")
        values = [_number(box.findtext(corner) if box is not None else None) for corner in CORNERS]
        name = item.findtext("name")
        objects.append(RawObject(values, name and (name.strip() or name), f"object[{number}].bndbox"))
    size = [_number(tree.findtext(f"size/{side}")) for side in ("width", "height")]
    declared = (size[0], size[1]) if all(isinstance(side, float) and side > 0 for side in size) else None
    return RawImage(place, shown_path(file.stem), objects, declared, _find(file, tree.findtext("filename")))


def _is_name(category: Any) -> bool:
    """Whether a box has a class: an empty name, or one of spaces, is a fault that the checks report."""
    return isinstance(category, str) and bool(category.strip())


def _number(text: str | None) -> Any:
    """Number in a text, or the text itself where it is not a number."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text


def _find(file: Path, name: str | None) -> Path:
    """Path of the image of an annotation file, beside it or in the image folders of VOC."""
    folders = [file.parent, file.parent.parent / "JPEGImages", file.parent.parent / "images", file.parent.parent]
    for folder in folders:
        if name and is_file(folder / Path(name).name):
            return folder / Path(name).name
        for ending in (".jpg", ".jpeg", ".png", ".JPG", *sorted(EXTENSIONS)):
            if is_file(folder / f"{file.stem}{ending}"):
                return folder / f"{file.stem}{ending}"
    return file.parent / (name or f"{file.stem}.jpg")


def _from_zero(image: RawImage) -> RawImage:
    shifted = [
        item._replace(box=[v - 1 if n < 2 and isinstance(v, float) else v for n, v in enumerate(item.box)])
        for item in image.objects
    ]
    return image._replace(objects=shifted)


def _without_annotations(splits: dict[str, list[RawImage]], annotations: list[Path]) -> list[Path]:
    """Images without an annotation file, in the folders of the images and of the annotation files."""
    known = {file.stem for file in annotations}
    used = {image.file.parent for images in splits.values() for image in images if image.file is not None}
    folders = used | {file.parent for file in annotations}
    return sorted(
        file
        for folder in folders
        if is_folder(folder)
        for file in folder.iterdir()
        if file.suffix.lower() in EXTENSIONS and file.stem not in known
    )


__all__ = ["read_voc"]
