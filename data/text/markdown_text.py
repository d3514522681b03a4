"""Escaping of names in Markdown, so that they are shown literally and make no HTML, heading, link or table."""

import re

from .terminal_text import visible, visible_lines

_SPACE = re.compile(r"(\s+)")
# Characters with a meaning within a line in Markdown or an extension of it; an underscore within a word has none.
_MARKS = re.compile(r"[\\`*\[\]<>|~$^]|(?<![^\W_])_|_(?![^\W_])|\A[#=]|=(?==)|(?<==)=")
# Characters that begin a block and are not among the marks above.
_BLOCK = re.compile(r"(?P<number>\A\d{1,9})(?=[.)](?:\s|\Z))|\A[-+](?=\s|\Z|-)")
# Text that some renderers turn into links or pictures; only a code span prevents it everywhere.
_LINK = re.compile(r"://|\S@\S|:\w+:|\bwww\.|\w\.[^\W\d]|\bmailto:|\bxmpp:|\btel:", re.IGNORECASE)


class Markdown(str):
    """Text that is already Markdown."""

    __slots__ = ()


def markdown_text(text: str, cell: bool = False) -> Markdown:
    r"""Markdown of a name, which renders to `visible(name)`.

    Args:
        text: Name to escape.
        cell: Whether the name stands in a table, where a bar needs a backslash in code spans too.

    Example:
        >>> print(markdown_text("<b> cat | dog_1"))
        \<b\> cat \| dog_1
    """
    words = _SPACE.split(visible(text))
    edges = {1 if not words[0] else None, len(words) - 2 if not words[-1] else None}
    return Markdown(
        "".join(
            _spaces(word, place in edges) if place % 2 else _word(word, cell, place) for place, word in enumerate(words)
        )
    )


def _word(word: str, cell: bool, place: int) -> str:
    if _LINK.search(word):
        return markdown_code(word, cell)
    word = _MARKS.sub(r"\\\g<0>", word.replace("&", "&amp;"))
    if place or cell:  # no block begins there
        return word
    return _BLOCK.sub(lambda found: f"{found[0]}\\" if found["number"] else f"\\{found[0]}", word)


def _spaces(spaces: str, at_edge: bool) -> str:
    """White space as character references where needed, because Markdown drops it at either end."""
    kept = " " if spaces[0] == " " and not at_edge else ""
    return kept + "".join(f"&#{ord(space)};" for space in spaces[len(kept) :])


def markdown_code(text: str, cell: bool = False) -> Markdown:
    """Code span of a name; a name of white space alone becomes character references, as it can form no span."""
    text = visible(text)
    if not text.strip():
        return Markdown(_spaces(text, at_edge=True) if text else "")
    fence = _fence(text, 1)
    pad = " " if text[0] in " `" or text[-1] in " `" else ""
    inside = text.replace("|", r"\|") if cell else text
    return Markdown(f"{fence}{pad}{inside}{pad}{fence}")


def markdown_block(text: str, language: str) -> Markdown:
    """Fenced block of lines of code, with a fence longer than any run of backticks in them."""
    fence = _fence(text, 3)
    lines = visible_lines(text.replace("\r\n", "\n").rstrip("\n"))
    return Markdown(f"{fence}{language}\n{lines}\n{fence}")


def python_text(text: str) -> Markdown:
    r"""Python string literal in double quotes, for a line of code.

    Example:
        >>> print(python_text('C:\\a "b"'))
        "C:\\a \"b\""
    """
    return Markdown('"' + visible(text.replace("\\", r"\\").replace('"', r"\"")) + '"')


def _fence(text: str, least: int) -> str:
    runs = [len(run) for run in re.findall("`+", text)]
    if least == 1:  # a run of backticks of equal length would end the span
        return "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
    return "`" * max([least, *(run + 1 for run in runs)])


__all__ = ["Markdown", "markdown_block", "markdown_code", "markdown_text", "python_text"]
