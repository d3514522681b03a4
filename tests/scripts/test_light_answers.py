"""Help, wrong use and missing files are answered at once: without importing the libraries that compute."""

import json
import os
import re
import subprocess
import sys

import pytest
import typer
from patience import PATIENCE
from vithub.scripts.command_line import app, run

LARGE = ("torch", "transformers", "numpy", "datasets", "timm", "pandas", "matplotlib", "accelerate")
# What is typed, the exit code, and what the answer says.
ANSWERS = [
    ([], 2, "Usage: vithub"),
    (["--help"], 0, "Commands:"),
    (["-h"], 0, "check-data"),
    (["finetune", "--help"], 0, r"training\.optimizer = 'adamw'  \[adamw\|sgd\|lamb\|muon\]"),
    *[([name, "-h"], 0, f"Usage: vithub {name}") for name in ("evaluate", "predict", "convert", "publish", "explain")],
    *[([name, "-h"], 0, f"Usage: vithub {name}") for name in ("compare", "demo", "check-data")],
    (["finetun"], 2, "Did you mean 'finetune'"),
    (["pretrain", "--help"], 0, r"pretraining\.mask_ratio = None"),
    (["pretrain"], 2, "--data is missing: name a folder of images"),
    (["pretrain", "--data", ".", "--method", "moco"], 2, "--method takes mae, simmim.*, got 'moco'"),
    (["pretrain", "--data", ".", "--mask-ratio", "1"], 2, r"pretraining\.mask_ratio: .*less than 1, got 1\.0"),
    (["pretrain", "--data", "nowhere"], 1, "there is no data set at nowhere"),
    (["finetune", "--epohcs", "3"], 2, r"No such option: --epohcs .*--epochs"),
    (["finetune", "--learning-rate", "3"], 2, r"--learning-rate .*--lr\)"),
    (["finetune", "--out", "runs/x"], 2, r"--out .*--output\)"),
    (["finetune", "--mixup", "0.8"], 2, r"--mixup .*--set augmentation\.mixup=VALUE\)"),
    (["finetune", "--weight_decay", "0.8"], 2, r"--weight_decay .*--set training\.weight_decay=VALUE\)"),
    (["finetune", "--epochs", "many"], 2, "--epochs"),
    (["finetune", "--set", "training.lr"], 2, "NAME=VALUE.*training.lr"),
    (["finetune", "--set", "training.learning_rate=1"], 2, r"'training\.learning_rate'; did you mean training\.lr\?"),
    (["finetune", "--set", "training.lr=-1"], 2, r"training\.lr: .*greater than 0, got -1"),
    (["finetune", "--set", "training.lr=true"], 2, r"training\.lr takes no true or false"),
    (["finetune", "--set", "training=3", "--set", "training.lr=1"], 2, "training: must name fields and values, got 3"),
    (["finetune", "--set", "training.optimizer=adam"], 2, r"training\.optimizer: .*'adamw'.*got 'adam'"),
    (["finetune", "--resume", "--epochs", "0"], 2, r"training\.epochs: .*greater than or equal to 1, got 0"),
    (["finetune", "--on-bad-image", "ignore"], 2, r"data\.on_bad_image: .*'error' or 'skip', got 'ignore'"),
    (["finetune", "--preset", "swin"], 2, "there is no 'swin'; there are deit"),
    (["finetune", "--preset", "digits", "--set", "training.accumulation=7"], 2, "must be a multiple of"),
    (["finetune", "--preset", "digits", "--recipe", "mine.yaml"], 2, "--recipe and --preset are both"),
    (["finetune", "--recipe", "mine.yaml"], 2, r"mine\.yaml: training\.lr: .*greater than 0, got -1"),
    (["finetune", "--front-end", "keras"], 2, "accelerate or trainer"),
    (["finetune", "--recipe", "gone.yaml"], 2, r"no file gone\.yaml"),
    (["finetune", "--model", "vit-tiny"], 1, "no model 'vit-tiny'; did you mean vit-ti.*vit-ti, vit-s, vit-b, vit-l"),
    (["finetune", "--model", "deit"], 1, "no model 'deit'; .*deit-ti, deit-s"),
    (["finetune", "--model", "./gone"], 1, r"no model at \./gone: no such file or folder"),
    (["finetune", "--data", "/no/such/place"], 1, "no data set at /no/such/place: no such file or folder"),
    (["finetune", "--data", "photos"], 1, "no data set at photos: no such file or folder"),
    (["finetune", "--teacher", "~/gone"], 1, "no model at ~/gone"),
    (["evaluate", "runs/gone"], 1, "no model at runs/gone: no such file or folder"),
    (["evaluate", "here", "--resume"], 2, "--resume needs --output"),
    (["evaluate", "here", "--on-bad-image", "ignore"], 2, "--on-bad-image takes error or skip, got 'ignore'"),
    (["predict", "here", "here", "--on-bad-image", "ignore"], 2, "--on-bad-image takes error or skip, got 'ignore'"),
    (["explain", "here", "here", "--on-bad-image", "ignore"], 2, "--on-bad-image takes error or skip, got 'ignore'"),
    (["explain", "here", "here", "--method", "magic"], 2, "--method takes one of auto, all, .*, got 'magic'"),
    (["compare", "here", "--sections", "cost,speed"], 2, "--sections takes cost, translation, .*, got speed"),
    (["compare", "here", "--precision", "fp64"], 2, "--precision takes auto, fp32 or bf16, got 'fp64'"),
    (["compare", "here", "--part", "2/2"], 2, "--part takes I/N"),
    (["check-data", "here", "--boxes-on", "left"], 2, "--boxes-on takes upright or stored, got 'left'"),
    (["check-data", "here", "--augmentation", "all"], 2, "--augmentation takes .*, with --output, got 'all'"),
    (["predict", "here"], 2, "IMAGE"),
    (["predict", "here", "gone.png"], 1, r"no image at gone\.png"),
    (["convert", "a/b/c", "target"], 1, "no model at a/b/c"),
    (["convert", "here", "target", "--to", "keras"], 2, "--to takes one of vithub, transformers, timm, got 'keras'"),
    (["publish", "gone", "user/name"], 1, "no model at gone"),
    (["publish", "here", "user/name", "--create-pr", "--tag", "v1"], 2, "--create-pr"),
    (["demo", "here", "here", "here"], 2, "one model, or two"),
    (["demo", "here", "--space", "page", "--backend", "onnx"], 2, "--backend is for a page that is served here"),
    (["check-data", "gone.json"], 1, r"no data set at gone\.json"),
]  # fmt: skip
CODE = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from vithub.scripts.command_line import app, run
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["vithub", *arguments]
    told = StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        code = run(app)
    print(json.dumps([arguments, code, told.getvalue(), sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit code, text and imported modules of each, from one clean process."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "here").mkdir()
    (folder / "mine.yaml").write_text("preset: digits\ntraining: {lr: -1}\n")
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps([arguments for arguments, _, _ in ANSWERS])], cwd=folder,
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {json.dumps(arguments): rest for arguments, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(("arguments", "code", "message"), ANSWERS, ids=lambda value: str(value)[:60])
def test_an_answer_needs_no_large_library(arguments, code, message, answers):
    got, text, modules = answers[json.dumps(arguments)]
    assert got == code, text
    assert re.search(message, " ".join(text.split()) if "  " not in message else text), text
    assert "Traceback" not in text
    assert not set(LARGE) & set(modules)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=str)
def test_the_list_of_commands_needs_neither_recipes_nor_what_they_are_checked_with(arguments, answers):
    """They would take as long as all the rest of `vithub --help`."""
    modules = answers[json.dumps(arguments)][2]
    assert not {"pydantic", "yaml", "rich", "huggingface_hub", "PIL"} & set(modules)
    assert "vithub.training.recipe.recipe" not in modules


def shown(monkeypatch, capsys, *arguments):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["vithub", *arguments])
    assert run(app) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [known.callback.__name__.replace("_", "-") for known in app.registered_commands])
def test_help_at_80_columns_is_whole(command, monkeypatch, capsys):
    text = shown(monkeypatch, capsys, command, "-h")
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    (registered,) = (known for known in app.registered_commands if known.callback.__name__.replace("_", "-") == command)
    made = typer.main.get_command(app).commands[command]
    for parameter in made.params:
        for name in parameter.opts:
            assert (name in words) or not name.startswith("--"), name
        help_text = getattr(parameter, "help", None)
        assert " ".join((help_text or "").split()) in words, parameter.name
    assert registered.callback.__doc__ is not None


def test_the_list_of_commands_at_80_columns_is_whole(monkeypatch, capsys):
    text = shown(monkeypatch, capsys, "-h")
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for known in app.registered_commands:
        assert " ".join(known.callback.__doc__.split("\n\n")[0].split()) in words


def test_the_targets_of_a_conversion_are_those_that_there_are():
    from vithub.hub.conversion.convert import TARGETS
    from vithub.scripts.convert_command import CONVERSION_TARGETS

    assert tuple(TARGETS) == CONVERSION_TARGETS


def test_the_names_of_explanation_methods_are_those_that_there_are():
    from vithub.interpretability.explanation.method_names import METHOD_NAMES

    from vithub import EXPLANATION_METHODS

    assert tuple(EXPLANATION_METHODS) == METHOD_NAMES
