"""Reader of boxes in COCO's JSON format (https://cocodataset.org/#format-data)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...image_files import is_file
from ...sources import DataError
from ...splits import split_role
from ...text.json_reading import as_id, is_text, read_json
from ..formats import BoxFormat
from ..rows import RawBoxes, RawBoxSplit, RawImage, RawObject

ID = "must be a whole number or a text"


def find_coco_files(folder: Path) -> dict[str, Path]:
    """Finds the annotation files below a folder, by split: those named `instances*`, or all that hold boxes.

    Raises:
        DataError: Two files belong to the same split.
    """
    files = sorted(file for file in folder.rglob("*.json") if not file.name.startswith("."))
    named = [file for file in files if file.name.startswith("instances")]
    found: dict[str, Path] = {}
    for file in named or [file for file in files if _begins_like_coco(file)]:
        split = split_role(file.stem) or split_role(file.parent.name) or "all"
        if split in found:
            raise DataError(f"{found[split]} and {file} are both of the split {split!r}; name one file")
        found[split] = file
    return found


def read_coco(files: dict[str, Path], name: str) -> RawBoxes:
    """Reads the boxes of COCO files, given by split.

    Raises:
        DataError: A file cannot be read, is not a COCO file, or has other categories than the others.
    """
    splits: dict[str, RawBoxSplit] = {}
    categories: dict[Any, str] = {}
    notes: list[str] = []
    for split, file in files.items():
        content = _content(file)
        own = _categories(content, file)
        if categories and own != categories:
            raise DataError(
                f"{file} has other categories than {next(iter(files.values()))}: {_short(own)}, not "
                f"{_short(categories)}"
            )
        categories = own
        splits[split] = _split(content, file)
    ids = list(categories)
    if ids and ids != list(range(len(ids))):
        gaps = ", with gaps" if all(isinstance(i, int) for i in ids) and ids[-1] - ids[0] >= len(ids) else ""
        notes.append(f"category ids {ids[0]} to {ids[-1]}{gaps} are numbered 0 to {len(ids) - 1}")
    return RawBoxes(name, "COCO", splits, categories, BoxFormat("xywh", "pixels"), notes)


def _begins_like_coco(file: Path) -> bool:
    content = read_json(file)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return False
    annotations = content["annotations"]
    if not isinstance(annotations, list):
        return False
    return not annotations or any(isinstance(entry, dict) and "bbox" in entry for entry in annotations[:100])


def _content(file: Path) -> dict[str, list[Any]]:
    content = read_json(file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file} is no COCO file: it has no list {key!r}")
    return content


def _categories(content: dict[str, list[Any]], file: Path) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for row, category in enumerate(content["categories"]):
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise DataError(f"{file}: categories[{row}] must have an id and a name, got {_short(category)}")
        number, name = as_id(category["id"]), as_id(category["name"])
        if number is None:
            raise DataError(f"{file}: categories[{row}].id {ID}, got {_short(category['id'])}")
        if name is None:
            raise DataError(f"{file}: categories[{row}].name must be a text, got {_short(category['name'])}")
        if number in found:
            raise DataError(f"{file}: categories[{row}]: the id {number!r} is taken by {found[number]!r}")
        found[number] = str(name)
    if len({isinstance(number, str) for number in found}) > 1:
        raise DataError(f"{file}: the ids of the categories are of several types: {_short(list(found))}")
    return dict(sorted(found.items()))


def _split(content: dict[str, list[Any]], file: Path) -> RawBoxSplit:
    by_image: dict[Any, list[RawObject]] = {}
    folders = _image_folders(file)
    images = [_image(entry, f"images[{row}]", file, by_image, folders) for row, entry in enumerate(content["images"])]
    orphans: list[tuple[str, Any]] = []
    for row, annotation in enumerate(content["annotations"]):
        place = f"annotations[{row}]"
        if not isinstance(annotation, dict) or not {"image_id", "category_id", "bbox"} <= annotation.keys():
            raise DataError(
                f"{file}: {place} must have an image_id, a category_id and a bbox, got {_short(annotation)}"
            )
        number = as_id(annotation.get("id"))
        if number is None and annotation.get("id") is not None:
            raise DataError(f"{file}: {place}.id {ID}, got {_short(annotation['id'])}")
        image = as_id(annotation["image_id"])
        if image is None or image not in by_image:
            orphans.append((f"{file.name} {place}", annotation["image_id"]))
            continue
        by_image[image].append(
            RawObject(
                annotation["bbox"], annotation["category_id"], f"{place}.bbox", annotation.get("iscrowd", 0),
                annotation.get("area"), number,
            )
        )  # fmt: skip
    return RawBoxSplit(images, orphans=orphans)


def _image(
    entry: Any, place: str, file: Path, by_image: dict[Any, list[RawObject]], folders: Sequence[Path]
) -> RawImage:
    if not isinstance(entry, dict) or "id" not in entry or "file_name" not in entry:
        raise DataError(f"{file}: {place} must have an id and a file_name, got {_short(entry)}")
    name, number = entry["file_name"], as_id(entry["id"])
    if not is_text(name):
        raise DataError(f"{file}: {place}.file_name must be the name of a file, got {_short(name)}")
    if number is None and entry["id"] is not None:
        raise DataError(f"{file}: {place}.id {ID}, got {_short(entry['id'])}")
    declared = (entry["width"], entry["height"]) if "width" in entry and "height" in entry else None
    objects = by_image.setdefault(number, [])
    return RawImage(f"{file.name} {place} ({name})", number, objects, declared, _find(name, folders))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _image_folders(file: Path) -> list[Path]:
    """Folders that may hold the images of an annotation file: those beside it, or named after its split."""
    here, above = file.parent, file.parent.parent
    split = file.stem.removeprefix("instances_")
    role = split_role(file.stem)
    names = [split, "images", f"images/{split}", *([role, f"images/{role}"] if role else [])]
    if role == "validation":
        names += ["val", "valid", "images/val", "images/valid"]
    folders = [here, *(here / name for name in names), *(above / name for name in names), above]
    return [folder for folder in folders if folder.is_dir()]


def _find(name: str, folders: Sequence[Path]) -> Path:
    """Path of an image in the first folder that holds it, or in the first folder where none does."""
    for folder in folders:
        if is_file(folder / name):
            return folder / name
    return folders[0] / name


__all__ = ["find_coco_files", "read_coco"]
