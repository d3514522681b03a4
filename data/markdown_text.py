"""Writes names into Markdown so that they are shown as they are: no HTML, heading, link or table comes of them."""

import re

from .terminal_text import visible

# What Markdown, or an extension of it, gives a meaning to inside of a line.
_MARKS = re.compile(r"[\\`*_{}\[\]<>|~$#!^=]")
# Beginnings of blocks, of which the other marks above are none.
_BLOCK = re.compile(r"(?P<number>\A\d{1,9})(?=[.)](?:\s|\Z))|\A[-+](?=\s|\Z|-)")
# What some renderers turn into links or pictures by themselves; only a code span prevents it everywhere.
_LINK = re.compile(r"://|@|:\w+:|\bwww\.|\w\.[^\W\d]|\bmailto:|\bxmpp:|\btel:", re.IGNORECASE)
_SPACE = re.compile(r"\A\s+|\s+\Z|(?<=\s)\s+")


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def markdown_text(text: str, cell: bool = False) -> Markdown:
    r"""A name as Markdown that renders to `visible(name)`.

    Args:
        text: The name.
        cell: It stands in a table, where a bar needs a backslash in a code span too.

    Example:
        >>> print(markdown_text("<b> cat | dog_1"))
        \<b\> cat \| dog\_1
    """
    text = visible(text)
    if _LINK.search(text):
        return markdown_code(text, cell)
    text = _MARKS.sub(r"\\\g<0>", text.replace("&", "&amp;"))
    text = _BLOCK.sub(lambda found: f"{found[0]}\\" if found["number"] else f"\\{found[0]}", text)
    return Markdown(_SPACE.sub(lambda found: "".join(f"&#{ord(space)};" for space in found[0]), text))


def markdown_code(text: str, cell: bool = False) -> Markdown:
    """A name as a code span; without letters there is none."""
    text = visible(text)
    if not text.strip():
        return Markdown("".join(f"&#{ord(space)};" for space in text))
    fence = _fence(text, 1)
    pad = " " if text[0] in " `" or text[-1] in " `" else ""
    inside = text.replace("|", r"\|") if cell else text
    return Markdown(f"{fence}{pad}{inside}{pad}{fence}")


def markdown_block(text: str, language: str) -> Markdown:
    """Lines of code as a fenced block, whatever they hold."""
    fence = _fence(text, 3)
    lines = "\n".join(line.replace("\x00", "\N{REPLACEMENT CHARACTER}") for line in text.splitlines())
    return Markdown(f"{fence}{language}\n{lines}\n{fence}")


def python_text(text: str) -> Markdown:
    r"""A string of Python in double quotes, for a line of code.

    Example:
        >>> print(python_text('C:\\a "b"'))
        "C:\\a \"b\""
    """
    return Markdown('"' + visible(text.replace("\\", r"\\").replace('"', r"\"")) + '"')


def _fence(text: str, least: int) -> str:
    runs = [len(run) for run in re.findall("`+", text)]
    if least == 1:  # a run of that very length would end the span
        return "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    return "`" * max([least, *(run + 1 for run in runs)])


__all__ = ["Markdown", "markdown_block", "markdown_code", "markdown_text", "python_text"]
