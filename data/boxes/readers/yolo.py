"""Reader of boxes in YOLO's folders: a text file in `labels` for each image in `images`, with one line per box.

A line is `class cx cy width height`, relative to the image, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon, whose bounding
box is used. An image without a label file, or with an empty one, has no boxes.
"""

import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ...image_files import images_below, is_file, is_folder
from ...images import EXTENSIONS, shown_path
from ...sources import SPLIT_NAMES, DataError, read_lines
from ...splits import split_role
from ...text.json_reading import is_text
from ...text.yaml_reading import read_plain_yaml
from ..formats import BoxFormat
from ..rows import RawBoxes, RawBoxSplit, RawImage, RawObject


def find_yolo_settings(folder: Path) -> Path | None:
    """Finds the file that describes a YOLO data set: the first YAML file with `names` and `train`; None without one.

    `data.yaml` is tried first, then the others in the order of their names.
    """
    for file in [folder / "data.yaml", *sorted(folder.glob("*.y*ml"))]:
        if file.is_file() and {"names", "train"} <= _settings(file).keys():
            return file
    return None


def is_yolo_folder(folder: Path) -> bool:
    """Whether a folder has YOLO's layout."""
    return find_yolo_settings(folder) is not None or any(path.is_dir() for path in folder.rglob("labels"))


def read_yolo(source: Path) -> RawBoxes:
    """Reads the boxes of a YOLO folder, or of the data set that a YAML file describes.

    Raises:
        DataError: There are no images, a label or YAML file cannot be read, or the YAML file names no classes.
    """
    file = source if source.is_file() else find_yolo_settings(source)
    folder = source.parent if source.is_file() else source
    described = file or folder / "data.yaml"
    settings = _settings(described) if described.exists() else {}
    named = isinstance(settings.get("names"), dict | list) or (folder / "classes.txt").is_file()
    if described.exists() and not named:
        raise DataError(
            f"{shown_path(described)} names no classes: add `names`, a list or a table of number and name; without "
            "this file and without classes.txt classes are called by their numbers"
        )
    splits = _described(settings, file) if file is not None else _found(folder)
    if not any(splits.values()):
        raise DataError(f"{source} names no images ({', '.join(sorted(EXTENSIONS))})")
    raw = {
        split: RawBoxSplit([_image(image, folder) for image in images]) for split, images in splits.items() if images
    }
    used = {item.category for split in raw.values() for image in split.images for item in image.objects}
    categories, notes = _categories(settings, folder, used)
    return RawBoxes(shown_path(folder.name), "YOLO", raw, categories, BoxFormat("cxcywh", "relative"), notes)


def _settings(file: Path) -> dict[str, Any]:
    try:
        content = read_plain_yaml(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{shown_path(file)} cannot be read: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _described(settings: dict[str, Any], file: Path) -> dict[str, list[Path]]:
    """Images of each split that a YAML file names; paths of another computer are also tried relative to the file."""
    named = settings.get("path")
    root = Path("." if named is None else _text(named, "path", file))
    bases = [file.parent / root, file.parent]
    found = {}
    for split in ("train", "val", "test"):
        named = settings.get(split)
        entries = named if isinstance(named, list) else [named] if named else []
        images = [image for entry in entries for image in _entry(_text(entry, split, file), bases, file, split)]
        if images:
            found[split] = images
    return found


def _text(value: Any, field: str, file: Path) -> str:
    if not is_text(value):
        raise DataError(f"{file}: {field} must be the path of a folder or file, got {reprlib.repr(value)}")
    return str(value)


def _entry(entry: str, bases: list[Path], file: Path, split: str) -> list[Path]:
    tried = [base / name for name in (entry, entry.lstrip("./")) for base in bases]
    for path in tried:
        if is_file(path):
            return [(path.parent / line).absolute() for line in read_lines(path)]
        if is_folder(path):
            return _images_below(path)
    if split == "train":
        raise DataError(f"{file}: the training images are said to be in {entry!r}, which is not there")
    return []


def _found(folder: Path) -> dict[str, list[Path]]:
    """Images of each split of a folder without a YAML file, by paths such as `images/train` or `train/images`."""
    found: dict[str, list[Path]] = {}
    known = {name for names in SPLIT_NAMES.values() for name in names}
    for image in _images_below(folder):
        parts = [part.lower() for part in image.relative_to(folder).parts[:-1]]
        role = next((split_role(part, whole=True) for part in parts if part in known), None)
        found.setdefault(role or "all", []).append(image)
    return found


def _images_below(folder: Path) -> list[Path]:
    return images_below(folder).files


def _label_file(image: Path) -> Path:
    """Path of the label file of an image: the last `images` of its path becomes `labels`; otherwise beside it."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            return Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
    return image.with_suffix(".txt")


def _image(image: Path, root: Path) -> RawImage:
    place = shown_path(image.relative_to(root) if image.is_relative_to(root) else image)
    name, labels = shown_path(image.stem), _label_file(image)
    if not is_file(labels):
        if is_folder(labels) or labels.is_symlink():
            what = "a folder" if is_folder(labels) else "a link to a file that is not there"
            raise DataError(f"{shown_path(labels)} is {what}, and should be the text file of the boxes of {place}")
        return RawImage(place, name, [], None, image)
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown_path(labels)} cannot be read: {error}") from error
    file = shown_path(labels.name)
    objects = [_object(line, f"{file} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    return RawImage(place, name, objects, None, image)


def _object(line: str, place: str) -> RawObject:
    words = line.split()
    values: list[Any] = [_number(word) for word in words]
    category = int(values[0]) if isinstance(values[0], float) and values[0].is_integer() else words[0]
    box = values[1:]
    if len(box) >= 6 and len(box) % 2 == 0 and all(isinstance(value, float) for value in box):
        horizontal, vertical = box[0::2], box[1::2]
        low, high = (min(horizontal), min(vertical)), (max(horizontal), max(vertical))
        box = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[0] - low[0], high[1] - low[1]]
    return RawObject(box, category, place)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _categories(settings: dict[str, Any], folder: Path, used: set[Any]) -> tuple[dict[Any, str], list[str]]:
    named = settings.get("names")
    if isinstance(named, dict | list):
        return _named(named, folder), []
    listing = folder / "classes.txt"
    if listing.is_file():
        return dict(enumerate(read_lines(listing))), []
    numbers = sorted(number for number in used if isinstance(number, int))
    note = f"no file names the classes: they are called by their numbers, {', '.join(map(str, numbers[:12]))}"
    return {number: str(number) for number in numbers}, [note]


def _named(named: dict[Any, Any] | list[Any], folder: Path) -> dict[Any, str]:
    """Class names by number, from a list or dictionary of a YAML file.

    Raises:
        DataError: A key is not an integer from 0, a number is repeated, or a name is not text.
    """
    found: dict[int, str] = {}
    pairs: Iterable[tuple[Any, Any]] = named.items() if isinstance(named, dict) else enumerate(named)
    for key, value in pairs:
        try:
            number = int(key)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if number < 0:
            raise DataError(f"{shown_path(folder)}: names[{key!r}]: a class is a whole number from 0, got {key!r}")
        if number in found:
            raise DataError(f"{shown_path(folder)}: names[{key!r}]: the number {number} is taken by {found[number]!r}")
        if isinstance(value, dict | list | tuple | set | bytes) or not is_text(str(value)):
            raise DataError(f"{shown_path(folder)}: names[{key!r}] must be a text, got {reprlib.repr(value)}")
        found[number] = str(value)
    return dict(sorted(found.items()))


__all__ = ["find_yolo_settings", "is_yolo_folder", "read_yolo"]
