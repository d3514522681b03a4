"""The model card of a run: everything in it comes from the run's own files, and what a person wrote into it stays."""

import json
import logging
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FunctionLoader, StrictUndefined

from .card_detection import about_detections, about_detector, is_detection
from .card_facts import about_model, about_results, duration, energy, label_names, percent
from .card_header import UNKNOWN_LICENCE, base_model, card_header, hub_id, public_name, task_of, write_eval_results
from .card_merging import OldCard, assemble, merge_body, merge_header, read_old_card

PACKAGE_URL = "https://pypi.org/project/vithub/"
CARD = "README.md"
IN_MEMORY = "a Dataset in memory"  # what a recipe says of data that has no name
_PART = re.compile(r"^<!-- part (\S+) -->\n", re.MULTILINE)

logger = logging.getLogger("vithub")


def write_card(folder: Path, location: str | None = None) -> list[str]:
    """Writes `README.md` of a run from its `config.json`, `recipe.yaml` and `metrics.json`, and its `.eval_results`.

    Where there is a card already, its generated parts are replaced and all else stays. Where a generated part was
    edited, or the card was not written here, the old card is kept as `README.edited.md` and a warning says so.

    Args:
        folder: Of the run.
        location: What the snippets load; None takes the folder's path as it was given.

    Returns:
        Names of the generated parts and header fields that had been edited.
    """
    file = folder / CARD
    old_text = file.read_text(encoding="utf-8") if file.is_file() else None
    text, parts, fields, whole = _merged(folder, old_text, location, None)
    if old_text is not None and (parts or whole):
        copy = _keep(file, old_text)
        what = "was not written by vithub" if whole else f"had edits inside generated parts ({', '.join(parts)})"
        logger.warning(f"{file} {what}; it was written anew, and the old text is in {copy.name}")
    if fields:
        logger.warning(f"{file}: header fields {', '.join(fields)} were edited and stay as they are")
    file.write_text(text, encoding="utf-8")
    recipe, metrics = _recipe(folder)[1], _json(folder / "metrics.json")
    write_eval_results(folder, recipe, metrics)
    return parts + fields


def published_card(folder: Path, location: str, native: str | None = None, old_text: str | None = None) -> str:
    """The card as it is published: with the snippets of another place; what a person wrote into the folder's stays.

    Args:
        folder: Of the run; nothing is written there.
        location: "user/name".
        native: Class of transformers under which the model is published; None for its own.
        old_text: A card whose own text stays instead of the folder's.
    """
    file = folder / CARD
    if old_text is None and file.is_file():
        old_text = file.read_text(encoding="utf-8")
    text, parts, *_ = _merged(folder, old_text, location, native)
    if parts:
        logger.warning(f"{file} has edits inside generated parts ({', '.join(parts)}); they are not published")
    return text


def render_card(folder: Path, location: str | None = None, native: str | None = None) -> str:
    """The text of a new card; see `published_card`."""
    return _merged(folder, None, location, native)[0]


def _merged(
    folder: Path, old_text: str | None, location: str | None, native: str | None
) -> tuple[str, list[str], list[str], bool]:
    """The text, the edited parts, the edited fields of the header, and whether an old card was no card of ours."""
    old = read_old_card(old_text) if old_text is not None else None
    recipe_text, recipe = _recipe(folder)
    config, metrics = _json(folder / "config.json"), _json(folder / "metrics.json")
    generated = card_header(recipe, config, metrics)
    header, fields = merge_header(old, generated)
    values, template = _values(folder, recipe, config, metrics, native), f"{task_of(metrics).replace('-', '_')}.md"
    rendered = _render(template, values, header, recipe_text, location or str(folder))
    _, *pieces = _PART.split(rendered)
    parts = {name: text.strip("\n") + "\n" for name, text in zip(pieces[::2], pieces[1::2], strict=True)}
    body, edited = merge_body(old, parts)
    foreign = old_text is not None and not _is_ours(old)
    return assemble(header, generated, parts, body), edited, fields, foreign


def _is_ours(old: OldCard | None) -> bool:
    return old is not None and old.is_ours


def _render(template: str, values: dict[str, Any], header: dict[str, Any], recipe_text: str, location: str) -> str:
    environment = Environment(
        loader=FunctionLoader(_template),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.globals["percent"] = percent
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|")
    licence = header.get("license_name") or header.get("license") or UNKNOWN_LICENCE
    more = {
        "licence": None if licence == UNKNOWN_LICENCE else licence,
        "recipe_text": recipe_text,
        "location": location,
    }
    return environment.get_template(template).render(values | more)


def _template(name: str) -> str:
    return (files("vithub.model_cards") / name).read_text(encoding="utf-8")


def _values(
    folder: Path, recipe: dict[str, Any], config: dict[str, Any], metrics: dict[str, Any], native: str | None
) -> dict[str, Any]:
    labels, teacher = label_names(config, metrics), metrics.get("teacher")
    spent, backbone = metrics.get("energy"), recipe["model"].get("backbone")
    if is_detection(metrics):
        known = about_detector(config, metrics, native) | about_detections(folder, metrics, labels)
    else:
        known = about_model(config, metrics, native) | about_results(folder, metrics, labels)
    return {
        **known,
        "labels": labels,
        "labels_text": ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else ""),
        "package_url": PACKAGE_URL,
        "data": metrics["data"],
        "data_source": None if recipe["data"]["source"] == IN_MEMORY else public_name(recipe["data"]["source"]),
        "data_on_hub": hub_id(recipe["data"]["source"]) is not None,
        "base_model": base_model(recipe["model"]["source"]),
        "backbone_model": backbone and public_name(backbone),
        "published_epoch": metrics["published_epoch"],
        "publish": recipe["training"]["publish"],
        "weights": metrics.get("weights"),
        "teacher": teacher and {**teacher, "name": public_name(teacher["name"])},
        "epochs": len(metrics["history"]),
        "seconds_text": duration(metrics["seconds"]),
        "energy": spent and {**spent, "text": energy(spent["kwh"])},
        "hardware": metrics["hardware"],
        "precision": metrics["precision"],
        "processes": metrics["processes"],
        "batch_size": metrics["batch_size"],
        "in_memory": recipe["data"]["source"] == IN_MEMORY,
        "versions": metrics["versions"],
    }


def _keep(file: Path, text: str) -> Path:
    """Saves an old card beside the new one, under a name that is free or holds the same text."""
    number = 1
    while True:
        copy = file.with_name("README.edited.md" if number == 1 else f"README.edited-{number}.md")
        if not copy.is_file():
            copy.write_text(text, encoding="utf-8")
        if copy.read_text(encoding="utf-8") == text:
            return copy
        number += 1


def _recipe(folder: Path) -> tuple[str, dict[str, Any]]:
    text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


__all__ = ["published_card", "render_card", "write_card"]
