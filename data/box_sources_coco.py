"""Boxes in COCO's JSON format (https://cocodataset.org/#format-data)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .box_formats import BoxFormat
from .box_rows import RawBoxes, RawBoxSplit, RawImage, RawObject
from .sources import DataError
from .splits import split_role


def find_coco_files(folder: Path) -> dict[str, Path]:
    """The annotation files below a folder by split: those named `instances_*`, or all that hold boxes.

    Raises:
        DataError: Two files are of one split.
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
    """The boxes of COCO files, by split.

    Raises:
        DataError: A file cannot be read, is no COCO file, or names other categories than the others.
    """
    splits: dict[str, RawBoxSplit] = {}
    categories: dict[Any, str] = {}
    notes: list[str] = []
    for split, file in files.items():
        content = _content(file)
        own = _categories(content, file)
        if categories and own != categories:
            raise DataError(f"{file} has other categories than {next(iter(files.values()))}: {own}, not {categories}")
        categories = own
        splits[split] = _split(content, file)
    ids = list(categories)
    if ids and ids != list(range(len(ids))):
        gaps = ", with gaps" if all(isinstance(i, int) for i in ids) and ids[-1] - ids[0] >= len(ids) else ""
        notes.append(f"category ids {ids[0]} to {ids[-1]}{gaps} are numbered 0 to {len(ids) - 1}")
    return RawBoxes(name, "COCO", splits, categories, BoxFormat("xywh", "pixels"), notes)


def _begins_like_coco(file: Path) -> bool:
    content = _content(file)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return False
    annotations = content["annotations"]
    return not annotations or any("bbox" in annotation for annotation in annotations[:100])


def _content(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _categories(content: Any, file: Path) -> dict[Any, str]:
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file} is no COCO file: it has no list {key!r}")
    found: dict[Any, str] = {}
    for row, category in enumerate(content["categories"]):
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise DataError(f"{file}: categories[{row}] must have an id and a name, got {category!r}")
        if category["id"] in found:
            raise DataError(
                f"{file}: categories[{row}]: the id {category['id']!r} is taken by {found[category['id']]!r}"
            )
        found[category["id"]] = str(category["name"])
    try:
        return dict(sorted(found.items()))
    except TypeError as error:
        raise DataError(f"{file}: the ids of the categories are of several types: {list(found)}") from error


def _split(content: dict[str, Any], file: Path) -> RawBoxSplit:
    by_image: dict[Any, list[RawObject]] = {}
    images: list[RawImage] = []
    folders = _image_folders(file)
    for row, entry in enumerate(content["images"]):
        if not isinstance(entry, dict) or "id" not in entry or "file_name" not in entry:
            raise DataError(f"{file}: images[{row}] must have an id and a file_name, got {entry!r}")
        declared = (entry["width"], entry["height"]) if "width" in entry and "height" in entry else None
        place = f"{file.name} images[{row}] ({entry['file_name']})"
        objects = by_image.setdefault(entry["id"], [])
        images.append(RawImage(place, entry["id"], objects, declared, _find(str(entry["file_name"]), folders)))
    orphans: list[tuple[str, Any]] = []
    for row, annotation in enumerate(content["annotations"]):
        place = f"annotations[{row}]"
        if not isinstance(annotation, dict) or not {"image_id", "category_id", "bbox"} <= annotation.keys():
            raise DataError(f"{file}: {place} must have an image_id, a category_id and a bbox, got {annotation!r:.200}")
        if annotation["image_id"] not in by_image:
            orphans.append((f"{file.name} {place}", annotation["image_id"]))
            continue
        by_image[annotation["image_id"]].append(
            RawObject(
                annotation["bbox"], annotation["category_id"], f"{place}.bbox", annotation.get("iscrowd", 0),
                annotation.get("area"), annotation.get("id"),
            )
        )  # fmt: skip
    return RawBoxSplit(images, orphans=orphans)


def _image_folders(file: Path) -> list[Path]:
    """Where the images of an annotation file may be: beside it, or in a folder named after the split."""
    here, above = file.parent, file.parent.parent
    split = file.stem.removeprefix("instances_")
    role = split_role(file.stem)
    names = [split, "images", f"images/{split}", *([role, f"images/{role}"] if role else [])]
    if role == "validation":
        names += ["val", "valid", "images/val", "images/valid"]
    folders = [here, *(here / name for name in names), *(above / name for name in names), above]
    return [folder for folder in folders if folder.is_dir()]


def _find(name: str, folders: Sequence[Path]) -> Path:
    """The image in the first folder that holds it; in the first one where none does."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    return folders[0] / name


__all__ = ["find_coco_files", "read_coco"]
