"""A card that is written again: what a person wrote stays, what was generated is new, and nothing is lost."""

import logging
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from vithub.hub.card.merging import NOTICE, assemble, merge_body, merge_header, read_old_card
from vithub.hub.card.model_card import published_card, render_card, write_card

HEADER = {"license": "unknown", "tags": ["a", "b"], "model-index": [{"name": "x", "value": 0.5}]}
PARTS = {"summary": "# Title\n", "use": "Use it.\n\nSo.\n", "limits": "- one\n"}


def card(header=HEADER, parts=PARTS):
    return assemble(header, header, parts, merge_body(None, parts)[0])


def again(text, header=HEADER, parts=PARTS):
    old = read_old_card(text)
    merged, fields = merge_header(old, header)
    body, edited = merge_body(old, parts)
    return assemble(merged, header, parts, body), fields, edited


def test_the_same_content_gives_the_same_text():
    text = card()
    assert again(text) == (text, [], [])
    assert text.count(NOTICE) == 1


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029"), max_size=30).filter(
    lambda text: "vithub: " not in text
)


@given(own=st.lists(words, min_size=4, max_size=4), new=st.lists(words.map(lambda w: w + "\n"), min_size=3, max_size=3))
def test_text_around_the_parts_stays_and_the_parts_are_the_new_ones(own, new):
    text = card()
    for place, name in enumerate(PARTS):
        text = text.replace(f"<!-- vithub: begin {name}", f"{own[place]}\n<!-- vithub: begin {name}")
    text += own[3]
    parts = dict(zip(PARTS, new, strict=True))
    result, fields, edited = again(text, parts=parts)
    assert not fields and not edited  # noqa: PT018
    place = 0
    for words_of_theirs, part in zip(own, [*new, None], strict=True):
        place = result.index(words_of_theirs + "\n" if part is not None else words_of_theirs, place)
        if part is not None:
            place = result.index(part, place)
    assert again(result, parts=parts) == (result, [], [])


def test_an_edit_inside_a_part_is_named_and_replaced():
    result, fields, edited = again(card().replace("- one", "- one, mostly"))
    assert (fields, edited) == ([], ["limits"])
    assert result == card()


def test_a_part_that_was_removed_comes_back_where_it_was_and_is_named():
    text = re.sub(r"<!-- vithub: begin use.*?end use -->\n", "", card(), flags=re.DOTALL)
    result, _, edited = again(text)
    assert edited == ["use"]
    assert [m[1] for m in re.finditer(r"begin (\w+)", result) if m[1] in PARTS] == list(PARTS)


def test_a_broken_mark_loses_no_text():
    text = card().replace("<!-- vithub: end use -->\n", "")
    result, _, edited = again(text)
    assert edited == ["use"]
    assert result.count("Use it.") == 2


def test_a_new_part_comes_after_the_one_before_it_and_an_old_one_goes():
    parts = {"summary": "# Title\n", "data": "Data.\n", "limits": "- two\n"}
    result, _, edited = again(card(), parts=parts)
    assert edited == []
    assert [m[1] for m in re.finditer(r"<!-- vithub: begin (\w+)", result)] == list(parts)
    assert "Use it." not in result


def test_the_order_that_a_person_gave_the_parts_stays():
    text = card()
    use = re.search(r"<!-- vithub: begin use.*?end use -->\n", text, flags=re.DOTALL)[0]
    text = text.replace(use, "") + "\n" + use
    result, _, edited = again(text, parts=PARTS | {"use": "Other.\n"})
    assert edited == []
    assert result.index("- one") < result.index("Other.")


def test_fields_of_a_person_stay_and_others_are_renewed():
    text = card().replace("license: unknown", "license: mit")
    text = text.replace("\ntags:", "\nlanguage: [de, en]\ntags:", 1)
    result, fields, _ = again(text, header=HEADER | {"tags": ["c"], "metrics": ["f1"]})
    header = yaml.safe_load(result.split("---\n")[1])
    assert header == {
        "license": "mit", "tags": ["c"], "model-index": HEADER["model-index"], "metrics": ["f1"],
        "language": ["de", "en"],
    }  # fmt: skip
    assert fields == ["license"]
    later, fields, _ = again(result, header=HEADER | {"license": "other"})
    assert yaml.safe_load(later.split("---\n")[1])["license"] == "mit"
    assert fields == ["license"]


def test_a_field_that_was_removed_stays_away_and_one_no_longer_generated_goes():
    text = re.sub(r"\ntags:\n- a\n- b", "", card())
    result, fields, _ = again(text, header={name: HEADER[name] for name in ("license", "tags")})
    assert yaml.safe_load(result.split("---\n")[1]) == {"license": "unknown"}
    assert fields == ["tags"]


def test_windows_line_ends_are_no_edit():
    assert again(card().replace("\n", "\r\n")) == (card(), [], [])


@pytest.fixture
def folder(finished_run, tmp_path):
    return shutil.copytree(finished_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


def test_writing_a_card_twice_changes_nothing(folder):
    assert write_card(folder) == []
    once = (folder / "README.md").read_bytes()
    assert write_card(folder) == []
    assert (folder / "README.md").read_bytes() == once
    assert not list(folder.glob("README.edited*"))


def test_edits_survive_or_are_kept_beside_and_named(folder, caplog):
    write_card(folder)
    file = folder / "README.md"
    edited = file.read_text().replace("license: unknown", "license: apache-2.0")
    edited = edited.replace("## Limits, as measured\n", "## Limits, as I see them\n") + "\nThanks to my cat.\n"
    file.write_text(edited)
    with caplog.at_level(logging.WARNING, "vithub"):
        assert write_card(folder) == ["limits", "license"]
    text = file.read_text()
    assert "Thanks to my cat." in text
    assert "## Limits, as measured" in text
    assert "The licence of the weights is `apache-2.0`." in text
    assert ModelCard(text).data.license == "apache-2.0"
    assert (folder / "README.edited.md").read_text() == edited
    assert "edits inside generated parts (limits)" in caplog.text
    assert "README.edited.md" in caplog.text
    assert "header fields license were edited" in caplog.text
    assert write_card(folder) == ["license"]
    file.write_text(text.replace("## Use", "## Using"))
    assert write_card(folder) == ["use", "license"]
    assert (folder / "README.edited.md").read_text() == edited
    assert "## Using" in (folder / "README.edited-2.md").read_text()


@pytest.mark.parametrize("text", ["# By hand\n", "---\nlicense: mit\n---\n# By hand\n", "---\n: [\n---\nbroken\n"])
def test_a_card_of_another_hand_is_kept_beside(text, folder, caplog):
    (folder / "README.md").write_text(text)
    with caplog.at_level(logging.WARNING, "vithub"):
        write_card(folder)
    assert (folder / "README.md").read_text() == render_card(folder)
    assert (folder / "README.edited.md").read_text() == text
    assert "was not written by vithub" in caplog.text


def test_a_published_card_names_the_place_and_keeps_what_was_added(folder):
    write_card(folder)
    file = folder / "README.md"
    file.write_text(file.read_text() + "\nThanks.\n")
    before = {path.name: path.read_bytes() for path in folder.glob("*.md")}
    text = published_card(folder, "user/digits")
    assert '"user/digits", trust_remote_code=True)' in text
    assert str(folder) not in text
    assert "Thanks." in text
    native = published_card(folder, "user/digits", native="DeiTForImageClassificationWithTeacher")
    assert "It is saved as `DeiTForImageClassificationWithTeacher` of transformers" in native
    assert "trust_remote_code" not in native
    assert {path.name: path.read_bytes() for path in folder.glob("*.md")} == before


def test_a_data_set_of_the_hub_is_named_in_the_header_and_no_other_results_are_written(folder):
    results = folder / ".eval_results/vithub.yaml"
    results.parent.mkdir()
    results.write_text("- {}")  # as earlier versions wrote it
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(re.sub(r"source: [^\n,}]*digits", "source: someone/digits", recipe))
    write_card(folder)
    data = ModelCard((folder / "README.md").read_text()).data
    assert data.datasets == ["someone/digits"]
    assert {result.dataset_type for result in data.eval_results} == {"someone/digits"}
    assert not results.exists()
