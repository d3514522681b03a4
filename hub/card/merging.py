"""Merging of the generated parts of a model card with the text that a person wrote around them.

A generated part stands between two comments. The first holds a digest of the part, so that an edit inside is detected:

    <!-- vithub: begin results 0f1e2d3c4b5a -->
    ...
    <!-- vithub: end results -->

The digest of each header field is kept in one comment below the header.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

NOTICE = (
    "<!-- vithub replaces what stands between its comments `begin` and `end` when it writes this card again. "
    "Write your own text outside of them; it stays. -->\n"
)
_BEGIN = re.compile(r"<!-- vithub: begin (?P<name>[\w-]+) (?P<digest>[0-9a-f]+) -->\n")
_PARTS = "vithub-parts"
_FIELDS = re.compile(r"<!-- vithub: header (?P<fields>[^\n]*) -->\n")
_HEADER = re.compile(r"\A---\r?\n(?P<yaml>.*?)^---[ \t]*\r?\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class _Part:
    """Generated part in the body of a card.

    Args:
        name: Name of the part.
        start: Index of the first character of its first comment.
        end: Index after the last character of its last comment.
        edited: Whether its text differs from the generated one.
    """

    name: str
    start: int
    end: int
    edited: bool


def _parts(body: str) -> Iterator[_Part]:
    """Yields the generated parts of a body, in order.

    A part ends at the end comment up to which its text has the digest in its first comment, so that a part may contain
    comments that look like ours. An edited part ends at the first end comment with its name. A begin comment without an
    end comment is ignored.
    """
    place = 0
    while begin := _BEGIN.search(body, place):
        ending = re.compile(f"<!-- vithub: end {begin['name']} -->\n")
        ends = list(ending.finditer(body, begin.end()))
        whole = next((end for end in ends if _digest(body[begin.end() : end.start()]) == begin["digest"]), None)
        if not ends:
            place = begin.end()
            continue
        chosen = whole or ends[0]
        yield _Part(begin["name"], begin.start(), chosen.end(), whole is None)
        place = chosen.end()


@dataclass(frozen=True)
class OldCard:
    """Existing card, taken apart.

    Args:
        header: Fields of the header.
        generated: Digest of each generated field, by field name.
        parts: Names of the generated parts.
        body: Text after the header.
    """

    header: dict[str, Any]
    generated: dict[str, str]
    parts: list[str]
    body: str

    @property
    def is_ours(self) -> bool:
        """Whether this package generated the card."""
        return bool(self.generated or self.parts)

    @property
    def written(self) -> tuple[str, dict[str, Any]]:
        """Text that a person wrote around the generated parts, and fields that a person added or changed."""
        own, place, body = [], 0, _FIELDS.sub("", self.body, count=1)
        for part in _parts(body):
            own.append(body[place : part.start])
            place = part.end
        text = "".join([*own, body[place:]]).replace(NOTICE.strip(), "")
        fields = {
            name: value for name, value in self.header.items() if self.generated.get(name) != _digest(_plain(value))
        }
        return " ".join(text.split()), fields


def read_old_card(text: str) -> OldCard | None:
    """Takes a card apart; returns None if its header is not a YAML mapping."""
    text = text.replace("\r\n", "\n")
    header: Any = {}
    if found := _HEADER.match(text):
        try:
            header = yaml.safe_load(found["yaml"]) or {}
        except (yaml.YAMLError, ValueError, RecursionError):  # a date such as 2024-13-45 is a ValueError
            return None
        if not isinstance(header, dict):
            return None
    body = text[found.end() :] if found else text
    fields = _FIELDS.search(body)
    generated = dict(re.findall(r"(\S+?)=(\S*)", fields["fields"])) if fields else {}
    parts = generated.pop(_PARTS, "").split(",")
    return OldCard(header, generated, [name for name in parts if name], body)


def merge_header(old: OldCard | None, new: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Merges the fields of an existing header with the newly generated ones.

    Generated fields that a person changed or removed stay as they are, and so do fields that a person added. All other
    fields are the new ones.

    Returns:
        Merged fields, and the names of the generated fields that a person changed or removed.
    """
    if old is None or not old.is_ours:
        return dict(new), []
    edited = [
        name
        for name, digest in old.generated.items()
        if name not in old.header or _digest(_plain(old.header[name])) != digest
    ]
    merged = {name: value for name, value in new.items() if name not in edited}
    own = [name for name in old.header if name not in old.generated]
    merged |= {name: old.header[name] for name in (*edited, *own) if name in old.header}
    order = [*(name for name in new if name in merged), *(name for name in merged if name not in new)]
    return {name: merged[name] for name in order}, edited


def merge_body(old: OldCard | None, parts: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replaces the generated parts in the body of an existing card.

    The text around the parts and their order stay. A part that is new, or was removed, is inserted after the part that
    precedes it in `parts`.

    Args:
        old: Existing card, or None.
        parts: New text of each part by name, in order; each text ends with a line break.

    Returns:
        Body with the new parts, and the names of the old parts that a person changed or removed.
    """
    if old is None or not old.is_ours:
        return NOTICE + "\n" + "\n".join(_marked(name, text) for name, text in parts.items()), []
    body, edited = _FIELDS.sub("", old.body, count=1), []
    seen: set[str] = set()
    pieces, place = [], 0
    for part in _parts(body):
        edited += [part.name] if part.edited else []
        pieces.append(body[place : part.start])
        if part.name not in seen and part.name in parts:
            pieces.append(_marked(part.name, parts[part.name]))
            seen.add(part.name)
        place = part.end
    body = "".join([*pieces, body[place:]])
    previous = None
    for name, text in parts.items():
        if name not in seen:
            body = _inserted(body, _marked(name, text), previous)
            edited += [name] if name in old.parts else []
        previous = name
    return body, edited


def assemble(header: Mapping[str, Any], generated: Mapping[str, Any], parts: Iterable[str], body: str) -> str:
    """Text of the card.

    Args:
        header: Fields of the header.
        generated: Generated fields with their generated values.
        parts: Names of the generated parts.
        body: Body with the generated parts between their comments.
    """
    text = yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=1000)
    digests = " ".join(f"{name}={_digest(_plain(value))}" for name, value in generated.items())
    return f"---\n{text}---\n<!-- vithub: header {digests} {_PARTS}={','.join(parts)} -->\n{body}"


def _inserted(body: str, part: str, previous: str | None) -> str:
    for found in _parts(body):
        if found.name == previous:
            return f"{body[: found.end]}\n{part}{body[found.end :]}"
    if previous is None:
        return f"{part}\n{body}"
    return f"{body.rstrip()}\n\n{part}"


def _marked(name: str, text: str) -> str:
    return f"<!-- vithub: begin {name} {_digest(text)} -->\n{text}<!-- vithub: end {name} -->\n"


def _plain(value: Any) -> str:
    """Canonical text of a value, the same before and after a round trip through YAML."""
    plain = yaml.safe_load(yaml.safe_dump(value))
    try:
        return json.dumps(plain, sort_keys=True, default=str)
    except TypeError:  # keys of several types have no order
        return repr(plain)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


__all__ = ["NOTICE", "OldCard", "assemble", "merge_body", "merge_header", "read_old_card"]
