"""Names of contestants and data in a report: shown as text in Markdown and in the page."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from vithub.comparison.measurement import Measurement, Section
from vithub.comparison.report_page import markdown, page

names = st.sampled_from(
    ["<script>x</script>", "a|b", "# x", "[a](http://b)", "\x1b[31m", "x\n# y", "`", "--><!--", "www.a.b", "_a_", "-"]
) | st.text(min_size=1, max_size=8)
TEXT = {"text", "text_special", "code_inline"}


@dataclass
class Found:
    """A report of two contestants."""

    names: list[str]
    about: dict = field(default_factory=dict)

    @property
    def contestants(self):
        return [
            {
                "name": name,
                "family": "ViT",
                "library": "timm",
                "architecture": name,
                "parameters": 3,
                "image_hw": [8, 8],
            }
            for name in self.names
        ]

    @property
    def sections(self):
        rows = [
            Measurement(quantity="time", contestant=name, value=1.5, unit="ms", protocol="cost/x-1", note=f"of {name}")
            for name in self.names
        ]
        return [Section("cost", {"cost/x-1": "How."}, rows, [f"all of {self.names[0]}"])]

    @property
    def verdict_by_heading(self):
        return {"Cost": [f"{self.names[0]} is faster than {self.names[1]}."]}

    def to_dict(self):
        return {}


def about(data):
    return {
        "data": data.replace("/", ""),
        "command": f"vithub compare {data}",
        "versions": {"torch": "2"},
        "threads": 1,
    }


def structure(text):
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [(t.type, t.tag, [c.type for c in t.children or [] if c.type not in TEXT]) for t in tokens]


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_comment(self, data):
        self.found.append(("comment", data))


@given(contestants=st.lists(names, min_size=2, max_size=2, unique=True), data=names)
def test_any_name_is_shown_and_changes_nothing_else(contestants, data, tmp_path_factory):
    plain, odd = Found(["one", "two"], about("beasts")), Found(contestants, about(data))
    pictures = tmp_path_factory.getbasetemp()
    assert structure(markdown(odd, [])) == structure(markdown(plain, []))
    written = page(odd, [], pictures)
    assert Tags(written).found == Tags(page(plain, [], pictures)).found
    assert not [char for char in written if ord(char) < 32 and char != "\n"]
