"""Model card of a run, generated from the run's own files; text that a person wrote into it is kept."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import metadata as package_metadata
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, StrictUndefined, Template, UndefinedError

from ...data.text.markdown_text import Markdown, markdown_block, markdown_code, markdown_text, python_text
from ...data.text.terminal_text import visible
from ...data.whole_files import write_whole
from ..checkpoints import CheckpointError, read_config, read_json
from . import detection as _detection  # noqa: F401  # importing it registers the card of detectors
from . import pretraining as _pretraining  # noqa: F401  # importing it registers the card of backbones
from .exported_forms import exported_facts
from .facts import duration, energy, label_names, percent
from .header import RESULTS, UNKNOWN_LICENCE, base_model, card_header, hub_id, public_name
from .kinds import TEMPLATES, card_kind
from .loading_code import LoadingCode, loading_values
from .merging import OldCard, assemble, merge_body, merge_header, read_old_card
from .public_paths import public_recipe

PACKAGE = "vithub"
CARD = "README.md"
IN_MEMORY = "a Dataset in memory"  # data source in the recipe of a run on unnamed data
_PART = re.compile(r"^<!-- part (\S+) -->\n", re.MULTILINE)
# Names of project addresses in a package's metadata, in order of preference.
_ADDRESSES = ("homepage", "home", "repository", "source", "source code", "documentation")

logger = logging.getLogger("vithub")


def write_card(folder: Path, location: str | None = None) -> list[str]:
    """Writes `README.md` of a run from its `config.json`, `recipe.yaml` and `metrics.json`.

    In an existing card, the generated parts are replaced and all else stays. If a generated part was edited, or the
    card was not written by this package, the old card is kept as `README.edited.md` with a warning.

    Args:
        folder: Folder of the run.
        location: Path or Hub id that the code snippets load; None uses `folder` as given.

    Returns:
        Names of the generated parts and header fields that had been edited.
    """
    file = folder / CARD
    old_text = read_text(file) if file.is_file() else None
    text, parts, fields, whole = _merged(folder, old_text, location, None)
    if old_text is not None and (parts or whole):
        copy = _keep(file, old_text)
        what = "was not written by vithub" if whole else f"had edits inside generated parts ({', '.join(parts)})"
        logger.warning(f"{visible(str(file))} {what}; it was written anew, and the old text is in {copy.name}")
    if fields:
        logger.warning(f"{visible(str(file))}: header fields {', '.join(fields)} were edited and stay as they are")
    write_whole(file, text)
    (folder / RESULTS).unlink(missing_ok=True)  # earlier versions wrote it for data that the Hub shows no results of
    return parts + fields


def published_card(
    folder: Path,
    location: str,
    native: str | None = None,
    old_text: str | None = None,
    code: LoadingCode | None = None,
) -> str:
    """Text of the card for publication, with snippets that load `location`; text that a person wrote is kept.

    Args:
        folder: Folder of the run; nothing is written there.
        location: Hub id of the repository, "user/name".
        native: Class of transformers under which the model is published; None means its own class.
        old_text: Card whose hand-written text is kept; None uses the card in the folder.
        code: Code that is published beside the weights; None where there is none.
    """
    file = folder / CARD
    if old_text is None and file.is_file():
        old_text = read_text(file)
    text, parts, _, foreign = _merged(folder, old_text, location, native, code)
    if parts:
        named = ", ".join(parts)
        logger.warning(f"{visible(str(file))} has edits inside generated parts ({named}); they are not published")
    if foreign:
        logger.warning(
            f"{visible(str(file))} was not written by vithub, or its header is no YAML; it is not published, a card "
            "of the run is"
        )
    return text


def render_card(
    folder: Path, location: str | None = None, native: str | None = None, code: LoadingCode | None = None
) -> str:
    """Text of a new card, without any hand-written text; the arguments are those of `published_card`."""
    return _merged(folder, None, location, native, code)[0]


def _merged(
    folder: Path, old_text: str | None, location: str | None, native: str | None, code: LoadingCode | None = None
) -> tuple[str, list[str], list[str], bool]:
    """Text, names of edited parts, names of edited header fields, and whether the old card is not one of ours."""
    old = read_old_card(old_text) if old_text is not None else None
    recipe_text, recipe = read_recipe(folder)
    config, metrics = _json(folder / "config.json"), _json(folder / "metrics.json")
    with _whole(folder):
        generated = card_header(recipe, config, metrics)
        header, fields = merge_header(old, generated)
        values = _values(folder, recipe, config, metrics, native)
        templates = [card_kind(metrics).template, TEMPLATES / "training_and_licence.md"]
        if (exported := exported_facts(folder)) is not None:
            templates.insert(1, TEMPLATES / "exported_forms.md")
            values |= exported | {"hub_task": card_kind(metrics).hub_task}
        values |= loading_values(code, values.get("code", ""))
        parts = _render(templates, values, header, public_recipe(recipe_text), location or str(folder))
    body, edited = merge_body(old, parts)
    foreign = old_text is not None and not _is_ours(old)
    return assemble(header, generated, parts, body), edited, fields, foreign


def _is_ours(old: OldCard | None) -> bool:
    return old is not None and old.is_ours


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Turns missing or malformed entries of a run's files into an error that names the folder."""
    try:
        yield
    except (KeyError, UndefinedError) as error:
        lacking = f"lack {error}" if isinstance(error, KeyError) else f"lack what a card tells ({error})"
        raise CheckpointError(f"{folder}: config.json, recipe.yaml and metrics.json {lacking}") from error
    except (TypeError, AttributeError, IndexError) as error:
        what = "an entry of config.json, recipe.yaml or metrics.json has another form than a run writes"
        raise CheckpointError(f"{folder}: {what} ({error})") from error


def _render(
    templates: Sequence[Traversable], values: dict[str, Any], header: dict[str, Any], recipe_text: str, location: str
) -> dict[str, str]:
    """Rendered text by part; each part is a separate template, and values that are not Markdown are escaped."""
    licence = header.get("license_name") or header.get("license") or UNKNOWN_LICENCE
    more: dict[str, Any] = {
        "licence": None if licence == UNKNOWN_LICENCE else str(licence),
        "recipe_text": recipe_text,
        "location": location,
    }
    loading = _compiled((TEMPLATES / "loading.md").read_text(encoding="utf-8"))
    more["loading"] = Markdown(loading.render({"needs_timm": False} | values | more))
    parts = {}
    for template in templates:
        _, *pieces = _PART.split(template.read_text(encoding="utf-8"))
        for name, source in zip(pieces[::2], pieces[1::2], strict=True):
            parts[name] = _compiled(source).render(values | more).strip("\n") + "\n"
    return parts


@cache
def _compiled(source: str) -> Template:
    """Template of a part; compiling the parts takes longer than all else that a card needs."""
    return _environment().from_string(source)


@cache
def _environment() -> Environment:
    environment = Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: (
            markdown_text(value) if isinstance(value, str) and type(value) is not Markdown else value
        ),
        autoescape=False,  # noqa: S701  # it escapes HTML, not Markdown
    )
    environment.globals["percent"] = lambda value: Markdown(percent(value))
    environment.filters |= {
        "sentence": lambda text: text[:1].upper() + text[1:],
        "cell": lambda text, default="": markdown_text(text, cell=True) if text else Markdown(default),
        "code": markdown_code,
        "code_cell": lambda text: markdown_code(text, cell=True),
        "names": _names,
        "python": python_text,
        "block": markdown_block,
        "url": lambda text: Markdown(quote(text)),
    }
    return environment


def _names(labels: Sequence[str], most: int = 20) -> Markdown:
    """Labels as part of a sentence; beyond `most`, only the number of the remaining ones."""
    rest = f" and {len(labels) - most} more" if len(labels) > most else ""
    return Markdown(", ".join(map(markdown_text, labels[:most])) + rest)


def package_link() -> Markdown:
    """Name of this package, linked to the project page if the package's metadata names one."""
    about = package_metadata(PACKAGE)
    named = [entry.partition(",") for entry in about.get_all("Project-URL") or []]
    addresses = {name.strip().lower(): address.strip() for name, _, address in named}
    if "Home-page" in about:
        addresses.setdefault("homepage", about["Home-page"])
    found = next((addresses[name] for name in _ADDRESSES if name in addresses), None)
    return Markdown(f"[{PACKAGE}]({found})" if found else PACKAGE)


def _values(
    folder: Path, recipe: dict[str, Any], config: dict[str, Any], metrics: dict[str, Any], native: str | None
) -> dict[str, Any]:
    labels, teacher = label_names(config, metrics), metrics.get("teacher")
    spent, backbone = metrics.get("energy"), recipe["model"].get("backbone")
    known = card_kind(metrics).facts(folder, config, metrics, labels, native)
    return {
        **known,
        "labels": labels,
        "citations": [Markdown(citation) for citation in known["citations"]],
        "package": package_link(),
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
        "changes": metrics.get("changes"),
        "ended_early": metrics.get("ended_early"),
        "in_memory": recipe["data"]["source"] == IN_MEMORY,
        "versions": metrics["versions"],
    }


def _keep(file: Path, text: str) -> Path:
    """Saves an old card beside the new one, under a name that is free or already holds the same text."""
    number = 1
    while True:
        copy = file.with_name("README.edited.md" if number == 1 else f"README.edited-{number}.md")
        if not copy.is_file():
            write_whole(copy, text)
        if copy.read_text(encoding="utf-8") == text:
            return copy
        number += 1


def read_recipe(folder: Path) -> tuple[str, dict[str, Any]]:
    """Text of a run's recipe, without comments, and its content.

    Raises:
        CheckpointError: The file is no recipe.
    """
    file = folder / "recipe.yaml"
    text = read_text(file)
    try:
        recipe = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is no readable recipe: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{file} must hold a recipe, got {type(recipe).__name__}")
    # the comment lines hold the checksum, which is of no use in the card
    shown = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))
    return shown, recipe


def _json(file: Path) -> dict[str, Any]:
    return read_config(file.parent) if file.name == "config.json" else read_json(file)


def read_text(file: Path) -> str:
    """Reads a text file.

    Raises:
        CheckpointError: The file is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is no text in UTF-8: {error}") from error


__all__ = ["CARD", "package_link", "published_card", "read_recipe", "read_text", "render_card", "write_card"]
