"""Escaping of names in HTML, so that they are shown literally in text and in attributes."""

from html import escape

from .terminal_text import visible


def html_text(text: str) -> str:
    r"""HTML of a name, which shows as `visible(name)`.

    Example:
        >>> html_text('<b>"rose"\x1b')
        '&lt;b&gt;&quot;rose&quot;\\x1b'
    """
    return escape(visible(text), quote=True)


__all__ = ["html_text"]
