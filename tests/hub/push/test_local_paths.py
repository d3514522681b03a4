"""Paths of this machine: names in what is published, named where one is left, and kept where a run goes on from."""

import json
import logging
import shutil
import string

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from vithub.hub.card.public_paths import public_recipe, public_source, without_paths
from vithub.hub.push.files import PublishFile
from vithub.hub.push.local_paths import find_paths
from vithub.scripts.command_line import app, run
from vithub.training.recipe.recipe import Recipe

import vithub

PATHS = [
    "/home/ada/photos/flowers", "/Users/ada/flowers", "/root/x/flowers", "~/flowers", "C:\\Users\\ada\\flowers",
    "C:/Users/ada/flowers", "\\\\server\\share\\flowers", "file:///home/ada/flowers", "/mnt/data/a b/flowers",
    "../private/flowers", "runs/private/flowers/", "./flowers",
]  # fmt: skip
KEPT = [
    "google/vit-base-patch16-224", "deit-s", "vit-b/32", "digits", "a Dataset in memory", "hf-hub:timm/vit",
    "https://example.org/a/b", "hf://datasets/a/b",
]  # fmt: skip


def entry(text, path="README.md"):
    return PublishFile(path, len(text.encode()), True, "", text.encode())


@pytest.mark.parametrize("path", PATHS)
def test_a_path_becomes_its_name(path):
    assert public_source(path) == "flowers"


@pytest.mark.parametrize("source", KEPT)
def test_what_is_no_path_stays(source):
    assert public_source(source) == source
    assert without_paths(source) == source


@pytest.mark.parametrize("path", PATHS[:9])
def test_a_path_that_is_left_is_named_with_file_and_line(path):
    (finding,) = find_paths([entry(f"# A model\n\nfrom `{path}`, so\n")])
    assert (finding.path, finding.line) == ("README.md", 3)
    assert "ada" in finding.what or "server" in finding.what or "flowers" in finding.what or "/mnt/data" in finding.what
    (finding,) = find_paths([entry(json.dumps({"a": [path]}, indent=1), "config.json")])
    assert (finding.path, finding.line) == ("config.json", 3)


def test_nothing_is_found_where_there_is_no_path():
    text = (
        "see https://huggingface.co/a/b and http://x.org/home/y, 3 km/h and/or vit-b/32, [card](pictures/a.png), "
        "user/name, 1/2/3, <b>bold</b>/x, torch 2.4/2.5, `../a`, a:b, C: x"
    )
    assert find_paths([entry(text)]) == []
    assert without_paths(text) == text


words = st.text(string.ascii_letters + string.digits + "_- éß日", min_size=1, max_size=8).filter(
    lambda w: w.strip() == w
)


@example(parts=["a", "b"], root="/", field="data.source", labels=["~", "/home/ada", "C:\\x"])
@given(
    parts=st.lists(words, min_size=2, max_size=4),
    root=st.sampled_from(["/", "~/", "C:\\", "/home/"]),
    field=st.sampled_from(["model.source", "model.backbone", "data.source", "distillation.teacher"]),
    labels=st.lists(st.text(max_size=8), max_size=3),
)
def test_a_published_recipe_differs_in_its_paths_alone(parts, root, field, labels):
    path = root + ("\\" if root == "C:\\" else "/").join(parts)
    recipe = Recipe().with_values({field: path, "data.labels": labels})
    text = recipe.to_yaml()
    public = public_recipe("# mine\n" + text)
    assert public.startswith("# mine\n")
    expected = recipe.with_values({field: parts[-1]})
    assert Recipe.from_dict(_read(public)) == expected
    assert public_recipe(public) == public


def _read(text):
    from vithub.training.recipe.yaml_text import read_yaml

    return read_yaml(text)


@pytest.fixture
def folder(finished_run, tmp_path):
    return shutil.copytree(finished_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


def test_what_is_published_of_a_run_holds_no_path_and_the_run_goes_on(folder, digit_folders, tmp_path, quick, caplog):
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["bad_images"] = {"train": [f"{digit_folders}/one/7.png"]}
    metrics["teacher"] = {"name": "/home/ada/teacher", "kind": "hard", "through": "token"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with caplog.at_level(logging.WARNING, "vithub"):
        report = vithub.publish(folder, "ada/digits", dry_run=True)
    assert report.paths == []
    assert "a path of this machine" not in caplog.text
    for file in report.sent:
        if not file.path.endswith((".png", ".safetensors", ".py")):
            content = file.read().decode()
            for private in (str(tmp_path), str(digit_folders), str(digit_folders.parent), "/home/ada"):
                assert private not in content, file.path
    sent = {file.path: file.read() for file in report.sent if not file.path.endswith(".safetensors")}
    assert yaml.safe_load(sent["recipe.yaml"])["data"]["source"] == digit_folders.name
    assert json.loads(sent["metrics.json"])["bad_images"] == {"train": ["7.png"]}
    assert json.loads(sent["metrics.json"])["teacher"]["name"] == "teacher"
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_a_path_in_a_text_of_ones_own_is_named_before_anything_is_sent(folder, capfd, monkeypatch, caplog):
    with (folder / "README.md").open("a") as file:
        file.write("\nTrained from /home/ada/secret-project/photos.\n")
    lines = (folder / "README.md").read_text().split("\n")
    monkeypatch.setattr("sys.argv", ["vithub", "publish", str(folder), "ada/digits", "--dry-run", "--json"])
    with caplog.at_level(logging.WARNING, "vithub"):
        assert run(app) == 0
    (found,) = json.loads(capfd.readouterr().out)["paths"]
    sent = vithub.publish(folder, "ada/digits", dry_run=True)
    published = next(file for file in sent.sent if file.path == "README.md").read().decode().split("\n")
    number = published.index("Trained from /home/ada/secret-project/photos.") + 1
    assert found == f"README.md, line {number}: a path of this machine, /home/ada/secret-project/photos."
    assert found in caplog.text
    assert "Trained from /home/ada/secret-project/photos." in lines


def test_a_resumed_run_finds_its_data_where_it_was(finished_run, digit_folders, tmp_path, quick):
    """After it was published, the folder's own recipe still names the data's place."""
    out = shutil.copytree(finished_run.folder, tmp_path / "run")
    vithub.publish(out, "ada/digits", dry_run=True)
    assert Recipe.from_yaml(out / "recipe.yaml").data.source == str(digit_folders)
    again = vithub.finetune(data=digit_folders, output=out, recipe=Recipe(), values=quick({"training.epochs": 10}),
                            resume=True)  # fmt: skip
    assert again.metrics["test"] == finished_run.metrics["test"]


def test_a_card_of_another_hand_is_not_published_and_that_is_said(folder, caplog):
    (folder / "README.md").write_text("---\n: [\n---\n# By hand\n")
    with caplog.at_level(logging.WARNING, "vithub"):
        report = vithub.publish(folder, "ada/digits", dry_run=True)
    assert "it is not published" in caplog.text
    assert b"By hand" not in next(file for file in report.sent if file.path == "README.md").read()
