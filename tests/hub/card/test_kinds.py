"""Cards of all kinds of runs: one label or many, ours or others' models, with and without what a run may have."""

import json
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from vithub.hub.card.model_card import render_card

LABELS = ["ant", "bee", "cat | dog", "dragon", "eel", "fox"]


def row(card, name):
    """The text of a row of the first table."""
    found = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", card, re.MULTILINE)
    assert len(found) == 1, f"{name!r} is there {len(found)} times"
    return found[0]


@pytest.mark.parametrize("kind", ["vit", "deit", "resnet", "timm"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_the_card_is_whole_and_its_code_runs(kind, multi_label, run_folder, tmp_path, monkeypatch, capsys):
    _, metrics, card = run_folder(kind, multi_label)
    for placeholder in ("{{", "}}", "{%", "None", "nan", "undefined", "More Information", "TODO"):
        assert placeholder not in card, placeholder
    assert "\n\n\n" not in card
    parsed = ModelCard(card)
    headline = "mean_average_precision" if multi_label else "accuracy"
    assert parsed.data.metrics == [headline, "f1"]
    reported = {result.metric_type: result.metric_value for result in parsed.data.eval_results}
    assert reported[headline] == round(metrics["test"][headline], 4)
    assert ("import vithub" in card) == (kind in ("vit", "deit"))
    assert ("vision-transformer" in parsed.data.tags) == (kind in ("vit", "deit"))

    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 2
    spaces = []
    for snippet in snippets:
        spaces.append({})
        exec(compile(snippet, "card", "exec"), spaces[-1])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    # Both ways give the same probabilities, one per label that add up to 1, or each on its own.
    scores = {entry["label"]: entry["score"] for entry in spaces[0]["classify"]("photo.jpg", top_k=6)}
    probabilities = spaces[1]["probabilities"]
    assert [scores[name] for name in LABELS] == pytest.approx(probabilities.tolist(), abs=1e-5)
    assert (abs(sum(scores.values()) - 1) < 1e-5) != multi_label


def test_figures_of_one_label_come_with_their_intervals(run_folder):
    _, metrics, card = run_folder()
    for key, name in (("top5_accuracy", "top-5 accuracy"), ("macro_f1", "macro F1")):
        low, high = metrics["intervals"][key]
        text = f"{100 * metrics['test'][key]:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
        assert row(card, name) == text
    low, high = metrics["intervals"]["accuracy"]
    text = f"{100 * metrics['test']['accuracy']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    assert row(card, "test accuracy") == f"**{text}** of 80 images"
    error = metrics["test"]["expected_calibration_error"]
    assert row(card, "expected calibration error") == f"{100 * error:.1f} %"
    assert "bootstrap" in card
    assert "micro F1" not in card


def test_figures_of_many_labels_are_named_for_what_they_are(run_folder):
    _, metrics, card = run_folder(multi_label=True)
    for key, name in (("micro_f1", "micro F1"), ("accuracy", "images with every label right")):
        assert row(card, name).startswith(f"{100 * metrics['test'][key]:.1f} % (95 % interval ")
    value = metrics["test"]["mean_average_precision"]
    assert row(card, "test mean average precision").startswith(f"**{100 * value:.1f} % (95 % interval ")
    assert "| class | images | average precision | precision | recall | F1 |" in card
    assert "| fox | 0 | - | 0.0 % | 0.0 % | 0.0 % |" in card
    assert "| cat \\| dog | " in card
    assert "best validation mean average precision" in card
    assert "Every image gets one" not in card
    assert "confusion_matrix.png" not in card
    assert "top-5" not in card


def test_an_older_run_has_a_card_without_what_it_does_not_know(run_folder):
    names = ("problem", "intervals", "reliability", "weights", "teacher", "image_hw")
    folder, metrics, card = run_folder(**dict.fromkeys(names, ...))
    assert row(card, "test accuracy") == f"**{100 * metrics['test']['accuracy']:.1f} %** of 80 images"
    for absent in ("interval", "bootstrap", "reliability.png", "Guo", "averag", "teacher"):
        assert absent not in card.split("```yaml")[0] + card.split("Software:")[1], absent
    assert row(card, "input") == "32 x 32 pixels, patches of 8 x 8"
    assert "The weights are those of epoch 2 of 3" in card

    del metrics["test"]["expected_calibration_error"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "calibration" not in render_card(folder)


def test_an_interval_without_width_is_left_out(run_folder):
    _, _, card = run_folder(intervals={"accuracy": [1.0, 1.0]})
    assert "95 %" not in card
    assert "bootstrap" not in card


def test_the_card_links_the_pictures_that_there_are(run_folder):
    assert re.findall(r"!\[.*?\]\((.*?)\)", run_folder()[2]) == [
        "confusion_matrix.png",
        "reliability.png",
        "learning_curves.png",
    ]


def test_the_card_links_no_other_pictures(run_folder):
    folder, _, card = run_folder(reliability=None, confusion=None)
    assert re.findall(r"!\[.*?\]\((.*?)\)", card) == ["learning_curves.png"]
    assert "taken for" not in card
    (folder / "confusion_matrix.png").touch()  # of too many classes for metrics.json
    assert "![Confusion matrix](confusion_matrix.png)" in render_card(folder)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ("ema", "The weights are the moving average (EMA) of the trained ones after epoch 2 of 3"),
        ("trained", "The weights are the trained ones (not averaged) of epoch 2 of 3"),
    ],
)
def test_the_card_says_which_weights_these_are(weights, text, run_folder):
    assert text in run_folder(weights=weights)[2]


@pytest.mark.parametrize(
    ("kind", "through", "texts"),
    [
        ("soft", "token", ("the probabilities of the teacher", "a distillation token with its own head")),
        ("hard", "logits", ("the decisions of the teacher", "the classifier itself")),
    ],
)
def test_the_card_names_the_teacher_and_how_it_taught(kind, through, texts, run_folder):
    card = run_folder(teacher={"name": "some/teacher", "kind": kind, "through": through})[2]
    assert "taught by `some/teacher`" in card
    for text in (*texts, f"({kind} distillation)"):
        assert text in card


def test_folders_of_this_machine_are_named_without_their_path(run_folder, tmp_path):
    (tmp_path / "private" / "teacher").mkdir(parents=True)
    (tmp_path / "private" / "base").mkdir()
    teacher = {"name": str(tmp_path / "private" / "teacher"), "kind": "hard", "through": "logits"}
    folder, _, _ = run_folder(teacher=teacher, recipe={"model.source": str(tmp_path / "private" / "base")})
    said = render_card(folder, location="me/it").split("```yaml")[0]
    assert "taught by `teacher`" in said
    assert "starting from `base`" in said
    assert "private" not in said


@pytest.mark.parametrize(
    ("source", "text", "hub_id"),
    [
        ("deit-ti", "from scratch", None),
        ("vit-b/32", "from scratch", None),
        ("google/vit-base-patch16-224", "starting from `google/vit-base-patch16-224`", "google/vit-base-patch16-224"),
        ("/no/longer/here", "starting from `here`", None),
        ("./old_run", "starting from `old_run`", None),
    ],
)
def test_the_card_says_what_the_run_started_from(source, text, hub_id, run_folder):
    card = run_folder(recipe={"model.source": source})[2]
    assert f"on **beasts**, {text}." in card
    assert ModelCard(card).data.base_model == hub_id


@pytest.mark.parametrize(
    ("source", "datasets"), [("user/beasts", ["user/beasts"]), ("./beasts", None), ("data/beasts.csv", None)]
)
def test_only_a_hub_id_is_linked_as_a_data_set(source, datasets, run_folder):
    assert ModelCard(run_folder(recipe={"data.source": source})[2]).data.datasets == datasets


def test_images_that_were_left_out_are_counted_and_do_not_count_as_judged(run_folder):
    bad = {"train": ["a.jpg", "b.jpg", "a.jpg"], "test": ["c.jpg"], "validation": []}
    card = run_folder(bad_images=bad)[2]
    assert "left out: 2 of train, 1 of test; `metrics.json` names them." in card
    assert row(card, "test accuracy").endswith("of 79 images")
    assert "a.jpg" not in card


def test_a_validation_split_that_chose_the_epoch_is_said_to_flatter(run_folder):
    flattering = "results are somewhat too good"
    assert flattering in run_folder(reported_split="validation")[2]
    assert flattering not in run_folder(reported_split="validation", recipe={"training.publish": "last"})[2]


def test_a_validation_split_that_chose_nothing_is_not(run_folder):
    assert "results are somewhat too good" not in run_folder()[2]


def test_a_model_of_others_is_described_by_its_own_files_only(run_folder):
    card = run_folder("resnet", image_hw=[24, 40])[2]
    assert "An image classifier of type `resnet` that tells 6 classes" in card
    assert row(card, "input") == "40 x 24 pixels"
    assert "Dosovitskiy" not in card
    assert "# resnet for beasts" in card
    assert "timm installed" not in card


def test_a_model_of_others_without_a_size_has_no_row_of_it(run_folder):
    card = run_folder("timm", image_hw=...)[2]
    assert "| input |" not in card
    assert "The image classifier `test_vit` (`timm_wrapper`) that" in card
    assert "with timm installed" in card
    assert r"ant, bee, cat \| dog, dragon, eel, fox." in card


def test_notes_about_the_data_keep_their_letters(run_folder):
    data = {"name": "beasts", "sizes": {"train": 3, "validation": 8, "test": 80}, "notes": ["from ImageNet, Seed 0"]}
    assert "From ImageNet, Seed 0." in run_folder(data=data)[2]


def test_a_run_on_data_in_memory_is_repeated_with_that_data(run_folder):
    named, unnamed = run_folder()[2], run_folder(recipe={"data.source": "a Dataset in memory"})[2]
    assert "```bash\nvithub finetune --recipe recipe.yaml --output again\n```" in named
    assert "vithub.finetune(data=data" not in named
    assert "`data` being the same data set" in unnamed
    assert '```python\nvithub.finetune(data=data, recipe="recipe.yaml", output="again")\n```' in unnamed
    assert "```bash" not in unnamed


def test_the_recipe_in_the_card_is_the_recipe(run_folder):
    folder, _, card = run_folder()
    inside = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1]
    assert yaml.safe_load(inside) == yaml.safe_load((folder / "recipe.yaml").read_text())
