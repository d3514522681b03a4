"""`--fast` gives the same labels, keeps its choice, and says what was measured; its options need it."""

import json
import shutil
import sys

import pytest
from vithub.scripts.command_line import app, run


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vithub", *map(str, arguments)])
        code = run(app)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("fast") / "run"
    return shutil.copytree(finished_run.folder, place, ignore=shutil.ignore_patterns("checkpoints", "logs"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fast-seconds", "3", "--token-merging", "2"], "--fast-seconds, --token-merging needs --fast"),
        (["--fast-int8"], "--fast-int8 needs --fast"),
        (["--fast", "--backend", "onnx"], "leave out --backend"),
    ],
)
def test_options_without_effect_are_refused(command, folder, digit_folders, options, message):
    for words in (["predict", folder, digit_folders / "two"], ["evaluate", folder, "--data", digit_folders]):
        code, _, errors = command(*words, *options)
        assert code == 2
        assert message in " ".join(errors.split())


def test_fast_answers_as_without_it(command, folder, digit_folders, tmp_path, monkeypatch):
    photos, data = digit_folders / "two", ["--data", digit_folders]
    before = sorted(file.name for file in folder.iterdir())
    _, plain, _ = command("predict", folder, photos, "--json", "--top", "1")
    assert sorted(file.name for file in folder.iterdir()) == before  # nothing is measured or kept unasked
    code, out, errors = command("predict", folder, photos, "--json", "--top", "1", "--fast", "--fast-seconds", "20")
    assert code == 0
    one, other = ([json.loads(line) for line in text.splitlines()] for text in (plain, out))
    assert [entry["image"] for entry in other] == [entry["image"] for entry in one]
    assert [entry["predictions"][0]["label"] for entry in other] == [entry["predictions"][0]["label"] for entry in one]
    assert "given images" in errors
    assert "torch fp32 " in errors
    assert "\nchosen: " in errors
    assert (folder / "fast" / "choice.json").is_file()
    _, _, errors = command("predict", folder, *data, "--output", tmp_path / "rows", "--fast")
    assert "fast: measured earlier" in errors
    code, out, errors = command("evaluate", folder, *data, "--json", "--fast")
    assert "fast: measured earlier" in errors
    fast = json.loads(out)["metrics"]["accuracy"]
    _, out, _ = command("evaluate", folder, *data, "--json")
    assert fast == pytest.approx(json.loads(out)["metrics"]["accuracy"], abs=0.005)
    code, _, errors = command("predict", folder, *data, "--output", tmp_path / "more", "--fast", "--embeddings")
    assert code == 2
    assert "--embeddings are of the weights themselves" in errors
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, errors = command("evaluate", folder, *data, "--fast")
    assert code == 2
    assert "start one" in " ".join(errors.split())
