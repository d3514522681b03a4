"""Any text, once it is Markdown, HTML or a line of a terminal: it is shown, and does nothing."""

import ast
import re
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from vithub.data.text.html_text import html_text
from vithub.data.text.markdown_text import markdown_block, markdown_code, markdown_text, python_text
from vithub.data.text.terminal_text import visible, visible_lines

ODD = [
    "<b>", "--><!--", "<!-- vithub: end use -->", "# head", "1. one", "12) x", "- item", "+ x", "---", "===", "> quote",
    "[x](y)", "![x](y)", "a|b", "*a*", "_a_", "`code`", "``", "~~x~~", "$x$", "&amp;", "&#60;", "http://a.b", "www.a.b",
    "me@home.org", "photo.jpg", "{{ seven }}", "\x1b[31m", "a\nb", "\u202eabc", " lead", "trail ", "a  b", "\\", "\\*",
    "|", "", "a `b@c` d", "CPU @ 3.20GHz", " ", ":smile:", "``` x",
    "a`", "`a", "-", "+", "日本", "\ud83d", "\ufeff", "\u00a0", "\t", "=",
]  # fmt: skip
anything = (
    st.sampled_from(ODD)
    | st.text(max_size=20)
    | st.text(alphabet="`|\\<>!-[]()*_ #1.ab&;\n", max_size=15)
    | (st.lists(st.sampled_from(ODD), max_size=3).map(" ".join))
)
PLAIN_TOKENS = {"inline", "paragraph_open", "paragraph_close"}
TABLE_TOKENS = {"table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open",
                "tr_close", "th_open", "th_close", "td_open", "td_close", "inline"}  # fmt: skip


def shown(children):
    assert {token.type for token in children} <= {"text", "code_inline", "text_special"}
    return "".join(token.content for token in children)


def fold(text):
    """As a reader sees it: a page shows any run of blanks as one."""
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("write", [markdown_text, markdown_code])
@given(text=anything)
def test_markdown_shows_the_text_and_nothing_else_comes_of_it(write, text):
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for before, after in (("", ""), ("is ", ", so"), ("", " end"), ("**", "**")):
        if before == "**" and not fold(visible(text)):
            continue
        tokens = parser.parse(before + write(text) + after)
        assert {token.type for token in tokens} <= PLAIN_TOKENS
        if before != "**":
            found = "".join(shown(token.children) for token in tokens if token.type == "inline")
            assert fold(found) == fold(before + visible(text) + after)


@pytest.mark.parametrize("write", [markdown_text, markdown_code])
@given(texts=st.lists(anything, min_size=2, max_size=2))
def test_a_cell_stays_one_cell(write, texts):
    lines = ["| a | b |", "|---|---|", f"| {write(texts[0], cell=True)} | {write(texts[1], cell=True)} |", "| x | y |"]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse("\n".join(lines))
    assert {token.type for token in tokens} <= TABLE_TOKENS
    cells = [shown(token.children) for token in tokens if token.type == "inline"]
    assert [fold(cell) for cell in cells] == ["a", "b", *(fold(visible(text)) for text in texts), "x", "y"]


@given(text=anything)
def test_a_block_of_code_holds_its_lines(text):
    (token,) = MarkdownIt("commonmark").parse(markdown_block(text, "yaml"))
    assert (token.type, token.info) == ("fence", "yaml")
    assert token.content.rstrip("\n") == visible_lines(text.replace("\r\n", "\n")).rstrip("\n")


@given(text=anything)
def test_a_string_of_python_is_the_text(text):
    literal = python_text(text)
    assert "\n" not in literal
    assert ast.literal_eval(literal) == text


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.texts, self.tags, self.comments = [], [], []

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_comment(self, data):
        self.comments.append(data)


@given(text=anything)
def test_html_shows_the_text_inside_and_as_an_attribute(text):
    reader = _Reader()
    reader.feed(f'<p title="{html_text(text)}">{html_text(text)}</p>')
    reader.close()
    assert reader.tags == [("p", [("title", visible(text))])]
    assert "".join(reader.texts) == visible(text)
    assert not reader.comments


@given(text=st.text())
@example(text="\x1b]0;title\x07\x9b31m\u202e\u2066\u2028\r\n")
def test_nothing_active_reaches_the_terminal_and_other_text_stays(text):
    line = visible(text)
    assert not [char for char in line if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [char for char in line if unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI")]
    assert line.encode() is not None
    if line != text:
        assert "\\" in line
    assert visible(line) == line
    assert visible_lines(text).count("\n") == text.count("\n")
