"""Escaping of control characters in names and messages, on which terminals and log viewers would act."""

import re

# Control characters, line and paragraph separators, controls of the writing direction, and surrogates.
_ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    r"""Text on one line in which nothing moves the cursor, sets a colour or changes the writing direction.

    Characters that would are escaped as in Python; all others are kept.

    Example:
        >>> visible("rose\x1b[31m\n"), visible("日本 rose")
        ('rose\\x1b[31m\\n', '日本 rose')
    """
    return _ACTIVE.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """Text escaped like `visible`, with line breaks kept."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


__all__ = ["visible", "visible_lines"]
