import json
import re
import resource
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from vithub.hub.card.model_card import render_card, write_card
from vithub.training.recipe.sealed_file import unseal

import vithub

PLACEHOLDERS = (
    "more information needed",
    "todo",
    "fixme",
    "tbd",
    "{{",
    "}}",
    "{%",
    "undefined",
    "none.",
    "nan",
    "null)",
)


@pytest.fixture(scope="module")
def text(finished_run):
    return (finished_run.folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def prose(text):
    """The card without its header and without code."""
    return re.sub(r"```.*?```", "", text.split("---\n", 2)[2], flags=re.DOTALL)


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_nothing_is_left_to_be_filled_in(text, prose):
    assert not [word for word in PLACEHOLDERS[:7] if word in text.lower()]
    assert not [word for word in PLACEHOLDERS if re.search(rf"(?<!\w){re.escape(word)}", prose.lower())]
    assert not re.search(r"\n{4,}", text)
    assert text.endswith("\n")


def test_the_header_is_understood_by_the_hub(finished_run, text):
    card = ModelCard(text, ignore_metadata_errors=False)
    data = card.data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-classification")
    assert {"vithub", "image-classification"} <= set(data.tags)
    results = {result.metric_type: result for result in data.eval_results}
    assert results["accuracy"].metric_value == pytest.approx(finished_run.metrics["test"]["accuracy"], abs=5e-5)
    assert results["f1"].metric_value == pytest.approx(finished_run.metrics["test"]["macro_f1"], abs=5e-5)
    assert {result.dataset_split for result in results.values()} == {"test"}
    assert ModelCard(str(card)).data.to_dict() == data.to_dict()


def test_the_header_names_no_path_as_a_hub_id(text):
    header = yaml.safe_load(text.split("---\n")[1])
    assert "datasets" not in header  # it was a folder
    assert "base_model" not in header  # it began from scratch


def test_its_figures_are_those_of_the_metrics(finished_run, prose):
    metrics = finished_run.metrics
    for name in ("accuracy", "top5_accuracy", "macro_f1"):
        assert f"{100 * metrics['test'][name]:.1f} %" in prose
    for row in metrics["per_class"]:
        (line,) = (line for line in prose.splitlines() if line.startswith(f"| {row['label']} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [str(row["images"]), *(f"{100 * row[n]:.1f} %" for n in ("precision", "recall", "f1"))]
    assert f"{metrics['parameters']:,}" in prose
    for split, count in metrics["data"]["sizes"].items():
        assert f"{count} images for {split}" in prose
    assert f"epoch {metrics['published_epoch']} of {len(metrics['history'])}" in prose
    assert f"{100 * metrics['validation']['accuracy']:.1f} %" in prose


def test_results_come_first_then_use_then_recipe_and_environment_folded(finished_run, text):
    body = text.split("---\n", 2)[2]
    shown = [line for line in body.splitlines() if line and not line.startswith("<!--")]
    assert shown[0].startswith("# ")
    assert shown[1] == f"On the test split of **{finished_run.metrics['data']['name']}**:"
    low, high = (100 * end for end in finished_run.metrics["intervals"]["accuracy"])
    assert f"95 % interval {low:.1f} to {high:.1f}" in shown[4]  # the headline, on the first screen
    order = ("| test accuracy |", "## Use", "```python", "## Results", "## Training\n")
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    folded = re.findall(r"\n<details>\n<summary>(\w+)</summary>\n\n(.*?)\n\n</details>\n", body, flags=re.DOTALL)
    recipe, environment = (dict(folded)[name] for name in ("Recipe", "Environment"))
    assert "vithub finetune --recipe recipe.yaml" in recipe
    assert "```yaml" in recipe
    assert "Software: " in environment
    assert finished_run.metrics["hardware"] in environment
    assert body.count("<details>") == body.count("</details>") == len(folded)


def test_the_most_confused_classes_are_named(finished_run, prose):
    confusion = finished_run.metrics["confusion"]
    wrong = {(row, column): n for row, line in enumerate(confusion) for column, n in enumerate(line) if row != column}
    names = finished_run.model.config.id2label
    counted = {(true, taken): int(n) for true, taken, n in re.findall(r"(\w+) taken for (\w+) \((\d+) times?\)", prose)}
    assert sorted(counted.values(), reverse=True) == sorted(wrong.values(), reverse=True)[: len(counted)]
    assert counted == {(names[r], names[c]): n for (r, c), n in wrong.items() if (names[r], names[c]) in counted}


def test_its_pictures_are_there(finished_run, text):
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert {"learning_curves.png", "confusion_matrix.png"} <= set(pictures)
    for picture in pictures:
        assert (finished_run.folder / picture).is_file()


def test_its_snippets_run(finished_run, text, tmp_path, digit_folders, capsys):
    photo = tmp_path / "photo.jpg"
    with Image.open(min((digit_folders / "four").iterdir())) as image:
        image.convert("RGB").save(photo)
    (expected,) = vithub.predict(finished_run.folder, [photo], top=1)
    snippets = blocks(text, "python")
    assert len(snippets) >= 2
    for snippet in snippets:
        code = compile(snippet.replace("photo.jpg", str(photo)), "README.md", "exec")
        exec(code, {"__name__": "snippet"})
        printed = capsys.readouterr().out
        assert expected["predictions"][0]["label"] in printed
        assert f"{expected['predictions'][0]['score']:.3f}" in printed


def test_it_holds_the_recipe_as_it_was_saved_but_for_paths(finished_run, text, digit_folders):
    saved = (finished_run.folder / "recipe.yaml").read_text()
    assert str(digit_folders) in saved
    shown = unseal(saved).replace(str(digit_folders), digit_folders.name).strip()
    assert shown in [block.strip() for block in blocks(text, "yaml")]


def test_it_can_be_written_for_another_place(finished_run):
    card = render_card(finished_run.folder, location="user/digits")
    assert str(finished_run.folder) not in "".join(blocks(card, "python"))
    assert all('"user/digits"' in block for block in blocks(card, "python"))


def test_labels_with_odd_characters_do_not_break_it(finished_run, tmp_path):
    odd = ["a|b", "*star*", "{{ seven }}", "<b>", "`code`", "Straße\nzwei", "#1", "ok", "[x](y)", "日本"]
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(odd)}
    config["label2id"] = {name: number for number, name in enumerate(odd)}
    (folder / "config.json").write_text(json.dumps(config))
    metrics = json.loads((folder / "metrics.json").read_text())
    for row, name in zip(metrics["per_class"], odd, strict=True):
        row["label"] = name
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert ModelCard(text).data.library_name == "transformers"
    table = [line for line in text.splitlines() if re.match(r"\| .* \| \d+ \| .* % \|$", line)]
    assert len(table) == 10
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 6 for line in table)


def test_a_full_disk_leaves_the_card_with_what_a_person_wrote(finished_run, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    text = (folder / "README.md").read_text(encoding="utf-8") + "\nWhat a person wrote.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_card(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (folder / "README.md").read_text(encoding="utf-8") == text
    assert not list(folder.glob(".README*"))
