"""The finished cards in `model_cards`: as they were generated, with nothing left over and their pictures."""

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from vithub.hub.card.merging import merge_body, merge_header, read_old_card

CARDS = sorted((Path(__file__).parents[3] / "model_cards").glob("*/README.md"))
# Of each kind of model: the pictures of its card, and what its header reports.
EXPECTED = {
    "image-classification": (
        {"confusion_matrix.png", "learning_curves.png", "reliability.png"},
        {"accuracy", "f1"},
    ),
    "object-detection": (
        {"precision_recall.png", "errors.png", "learning_curves.png"},
        {"mean_average_precision", "mean_average_precision_50", "mean_average_precision_75"},
    ),
}


def test_there_is_one():
    assert CARDS


@pytest.mark.parametrize("file", CARDS, ids=lambda file: file.parent.name)
def test_a_finished_card_is_whole(file):
    text = file.read_text(encoding="utf-8")
    for placeholder in ("more information needed", "todo", "{{", "{%", "/root/", "/home/", "/tmp/"):
        assert placeholder not in text.lower()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    data = ModelCard(text, ignore_metadata_errors=False).data
    due, measured = EXPECTED[data.pipeline_tag]
    assert due <= set(pictures)
    for picture in pictures:
        assert (file.parent / picture).read_bytes().startswith(b"\x89PNG")
    assert data.library_name == "transformers"
    assert {result.metric_type for result in data.eval_results} == measured
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(snippet, file.name, "exec")


@pytest.mark.parametrize("file", CARDS, ids=lambda file: file.parent.name)
def test_its_generated_parts_are_as_they_were_generated(file):
    old = read_old_card(file.read_text(encoding="utf-8"))
    assert merge_header(old, {})[1] == []
    assert set(old.parts) == {"summary", "use", "data", "results", "limits", "training", "citation"}
    assert merge_body(old, dict.fromkeys(old.parts, "new\n"))[1] == []
