"""Names of classes, files and data sets in a card: whatever they hold, they are shown, and the card stays the card."""

import copy
import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from vithub.data.text.terminal_text import visible
from vithub.hub.card import model_card
from vithub.hub.card.merging import merge_body, merge_header, read_old_card
from vithub.hub.card.model_card import package_link, render_card
from vithub.hub.checkpoints import CheckpointError
from vithub.scripts.command_line import _is_ours

PARTS = ["summary", "use", "data", "results", "limits", "training", "citation"]
HOSTILE = [
    "a\n<!-- part use -->\nb", "<!-- vithub: end results -->\n<!-- vithub: end summary -->", "--><!--",
    "# Title\n# More",
    "<script>alert(1)</script>", "\x1b[31mred", "| a | b |\n|---|---|", "```\n", "[x](https://evil.example)", "---\n",
    "www.evil.example", "me@evil.example", "\u202etac", "{{ labels }}{% raw %}", "a\u2028b\x85c", "$x$", "1. one",
    "- x",
]  # fmt: skip
names = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=12)
TEXT = {"text", "text_special", "code_inline"}


def fold(text):
    return re.sub(r"\s+", " ", text).strip()


def structure(card):
    """What Markdown makes of a card but for its texts: every block, and what is inside of lines."""
    found = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.split("\n---\n", 1)[1]):
        content = re.sub(r"[0-9a-f]{12}", "", token.content) if token.type == "html_block" else ""
        inside = [(child.type, child.tag) for child in token.children or [] if child.type not in TEXT]
        found.append((token.type, token.tag, content, inside))
    return found


def cells(card):
    """The texts of all cells of all tables."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card.split("\n---\n", 1)[1])
    places = [place for place, token in enumerate(tokens) if token.type == "td_open"]
    return [fold("".join(child.content for child in tokens[place + 1].children)) for place in places]


def named(folder, plain, labels, data, image):
    """Puts names into the files of a run."""
    config, metrics = copy.deepcopy(plain)
    config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    config["label2id"] = {label: number for number, label in enumerate(labels)}
    for row, label in zip(metrics["per_class"], labels, strict=True):
        row["label"] = label
    metrics["data"]["name"] = data
    metrics["data"]["notes"] = [f"one class is {labels[0]}"]
    metrics["teacher"] = {"name": image, "kind": "hard", "through": "token"}
    metrics["examples"] = [{"image": image, "true": [labels[0]], "predicted": [labels[1]], "probability": 0.5}]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_any_name_is_shown_as_text_and_changes_nothing_else(run_folder):
    folder, metrics, _ = run_folder()
    plain = (json.loads((folder / "config.json").read_text()), metrics)
    named(folder, plain, ["one", "two", "three", "four", "five", "six"], "beasts", "photo")
    harmless = structure(render_card(folder))

    @settings(max_examples=60)
    @given(labels=st.lists(names, min_size=6, max_size=6, unique=True), data=names, image=names)
    def check(labels, data, image):
        image = image.replace("/", "_").replace("\0", "_")
        named(folder, plain, labels, data, image)
        card = render_card(folder)
        assert card == "".join(char for char in card if char == "\n" or visible(char) == char)
        header = yaml.safe_load(card.split("---\n")[1])
        assert header["model-index"][0]["name"] == f"vithub on {visible(data)}"
        assert header["model-index"][0]["results"][0]["dataset"]["name"] == visible(data)
        assert ModelCard(card).data.library_name == "transformers"
        assert structure(card) == harmless
        shown = cells(card)
        assert {fold(visible(name)) for name in (*labels, image)} <= {*shown, ""}
        old = read_old_card(card)
        assert old.parts == PARTS
        assert merge_header(old, {})[1] == []
        assert merge_body(old, dict.fromkeys(PARTS, "new\n"))[1] == []
        ours = card.replace("<!-- vithub: begin limits", "Mine.\n\n<!-- vithub: begin limits", 1) + "\nThanks.\n"
        again, parts, fields, foreign = model_card._merged(folder, ours, None, None)
        assert (again, parts, fields, foreign) == (ours, [], [], False)

    check()


@given(text=names.map(lambda name: f"before\n{name}\n<!-- vithub: end use -->\n<!-- vithub: begin use 0 -->\nafter\n"))
def test_a_part_ends_where_its_digest_says(text):
    parts = {"summary": "# Title\n", "use": text, "limits": "- one\n"}
    body, _ = merge_body(None, parts)
    old = read_old_card(
        f"---\nlicense: mit\n---\n<!-- vithub: header vithub-parts=summary,use,limits -->\n{body}Mine.\n"
    )
    again, edited = merge_body(old, parts)
    assert edited == []
    assert again == f"{body}Mine.\n"
    assert old.written == ("Mine.", {"license": "mit"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
)


def test_a_damaged_file_of_a_run_is_one_line_that_names_it(run_folder):
    folder = run_folder()[0]
    kept = {name: (folder / name).read_text() for name in ("metrics.json", "config.json", "recipe.yaml")}

    @settings(max_examples=150)
    @given(st.data())
    def check(data):
        file = data.draw(st.sampled_from(sorted(kept)))
        content = json.loads(kept[file]) if file.endswith(".json") else yaml.safe_load(kept[file])
        field = data.draw(st.sampled_from(sorted(content)))
        if data.draw(st.booleans()):
            del content[field]
        else:
            content[field] = data.draw(JSON)
        (folder / file).write_text(json.dumps(content))
        error = failure(render_card, folder)
        (folder / file).write_text(kept[file])
        if error is not None:
            assert _is_ours(error), repr(error)
            assert str(folder) in str(error)

    check()


def failure(function, *arguments):
    """What a call raised."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001  # of any kind: the test judges it
        return error
    return None


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "\x00", "x: 2024-13-45\n"])
def test_a_recipe_that_is_none_is_named(text, run_folder):
    folder, *_ = run_folder()
    (folder / "recipe.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"recipe\.yaml"):
        render_card(folder)


def test_a_card_that_is_no_utf8_is_named(run_folder):
    folder, *_ = run_folder()
    (folder / "README.md").write_bytes(b"caf\xe9")
    with pytest.raises(CheckpointError, match=r"README\.md is no text in UTF-8"):
        model_card.write_card(folder)


@pytest.mark.parametrize(
    ("urls", "home", "expected"),
    [
        ([], None, "vithub"),
        (["Documentation, https://docs.example"], None, "[vithub](https://docs.example)"),
        (["Documentation, https://docs.example", "Repository, https://code.example"], None, "[vithub](https://code.example)"),
        (["Issues, https://issues.example"], None, "vithub"),
        ([], "https://home.example", "[vithub](https://home.example)"),
    ],
)  # fmt: skip
def test_the_package_is_linked_where_its_metadata_names_an_address(urls, home, expected, tmp_path, monkeypatch):
    """A package of this form, installed beside this one."""
    information = tmp_path / "elsewhere-1.0.dist-info"
    information.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: elsewhere", "Version: 1.0", *(f"Project-URL: {url}" for url in urls)]
    (information / "METADATA").write_text("\n".join([*lines, *([f"Home-page: {home}"] if home else [])]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model_card, "PACKAGE", "elsewhere")
    assert package_link() == expected.replace("vithub", "elsewhere")


def test_this_package_is_linked_as_its_metadata_says(run_folder):
    assert f"It was trained with {package_link()} on **beasts**" in run_folder()[2]
