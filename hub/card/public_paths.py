"""Replacement of local paths by file names in model cards and in the published files of a run."""

import json
import re
from pathlib import PureWindowsPath
from typing import Any

import yaml

from ...data.text.json_text import json_text
from .header import hub_id

# An absolute path of two parts or more; a home folder; a drive or share of Windows, also as JSON escapes it.
_END = r"""[^\s"'`<>|,;()\[\]{}]"""
PATH = re.compile(
    rf"""(?:file:(?=/))?(?<![\w./:~<>\\-])(?:~|/[\w.@+-]+(?=/))/{_END}+"""
    rf"""|\bfile:/+{_END}+"""
    rf"""|(?<![\w])[A-Za-z]:(?:\\{{1,2}}|/(?!/)){_END}+"""
    rf"""|(?<![\w\\])\\\\(?:\\\\)?\w[\w.-]*\\{{1,2}}{_END}+"""
)
_WHOLE = re.compile(r"(?:file:/|~?/|~\Z|[A-Za-z]:[\\/]|\\\\)")
_LABELS = ("data", "labels")
_SOURCES = {("model", "source"), ("model", "backbone"), ("data", "source"), ("distillation", "teacher")}


def public_source(source: str) -> str:
    """Published form of a recipe's source: a Hub id or URL unchanged, the last part of a path."""
    plain = source.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if hub_id(plain) or ("://" in source and not source.startswith("file:")):
        return source
    return _name(source) if _WHOLE.match(source) or re.search(r"[\\/]", source) else source


def public_recipe(text: str) -> str:
    """Text of a recipe with its paths replaced by names; everything else stays as written, class names included.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    changes: list[tuple[int, int, str]] = []
    for keys, node in _scalars(yaml.compose(text, Loader=yaml.SafeLoader)):
        if node.tag != "tag:yaml.org,2002:str" or keys == _LABELS:
            continue
        value = str(node.value)
        named = public_source(value) if keys in _SOURCES else without_paths(value)
        if named != value:
            written = yaml.safe_dump(named, allow_unicode=True, width=10_000).removesuffix("\n").removesuffix("\n...")
            changes.append((node.start_mark.index, node.end_mark.index, written))
    for start, end, written in sorted(changes, reverse=True):
        text = text[:start] + written + text[end:]
    return text


def public_metrics(text: str) -> str:
    """Text of a `metrics.json` with the paths in its values replaced by names."""
    content = json.loads(text)
    changed = _walked(content)
    if isinstance(changed, dict) and isinstance(changed.get("teacher"), dict) and "name" in changed["teacher"]:
        changed["teacher"]["name"] = public_source(str(changed["teacher"]["name"]))
    return text if changed == content else json_text(changed, indent=1) + "\n"


def without_paths(text: str) -> str:
    """A text with each path replaced by the name of its file.

    Example:
        >>> without_paths("read from /home/ada/photos/a.jpg, 3 km/h")
        'read from a.jpg, 3 km/h'
    """
    whole = _WHOLE.match(text) and text != "~" and "\n" not in text
    return _name(text) if whole else PATH.sub(lambda found: _name(found[0]), text)


def _name(path: str) -> str:
    """The last part of a POSIX or Windows path, "files" if it has none."""
    path = path.removeprefix("file:")
    if re.match(r"[A-Za-z]:|\\\\", path):
        return PureWindowsPath(path.replace("\\\\", "\\")).name or "files"
    path = path.rstrip("/")
    return "files" if path in ("", "~", ".", "..") else path.rsplit("/", 1)[-1]


def _scalars(node: Any, keys: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Scalar nodes of a YAML document, each with the keys that lead to it."""
    if isinstance(node, yaml.MappingNode):
        return [found for key, value in node.value for found in _scalars(value, (*keys, str(key.value)))]
    if isinstance(node, yaml.SequenceNode):
        return [found for value in node.value for found in _scalars(value, keys)]
    return [] if node is None else [(keys, node)]


def _walked(content: Any) -> Any:
    if isinstance(content, str):
        return without_paths(content)
    if isinstance(content, list):
        return [_walked(value) for value in content]
    return {name: _walked(value) for name, value in content.items()} if isinstance(content, dict) else content


__all__ = ["PATH", "public_metrics", "public_recipe", "public_source", "without_paths"]
