import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE
from vithub.hub.known_models import KNOWN_MODELS
from vithub.scripts.command_line import app, run
from vithub.scripts.finetune_command import assignments
from vithub.training.recipe.recipe import Recipe, field_choices, field_names

import vithub

COMMANDS = ("finetune", "evaluate", "predict", "runs", "convert", "publish", "explain", "models")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command as a shell would: `command("predict", folder, image)` gives exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vithub", *map(str, arguments)])
        code = run(app)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def photo(digit_folders):
    return min((digit_folders / "three").iterdir())


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory):
    """A ViT of transformers, as someone else saved it."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=30, patch_size=6,
        num_labels=3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def settings(quick):
    """A quick training as --set options, but for the number of epochs."""
    chosen = {name: value for name, value in quick().items() if name != "training.epochs"}
    return [part for name, value in chosen.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def options_of(text):
    """Name and description of each option of a help page."""
    part = text.split("Options:\n")[1].split("\n\n")[0]
    found = re.findall(r"^  (-\S.*?)(?:  +|\n {10,})(\S.*(?:\n {10,}.*)*)", part, flags=re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in found}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_every_option_with_its_default(name, command):
    code, text, errors = command(name, "--help")
    assert (code, errors) == (0, "")
    (registered,) = (known for known in app.registered_commands if known.callback.__name__ == name)
    options = options_of(text)
    taken = {parameter.rstrip("_").replace("_", "-") for parameter in inspect.signature(registered.callback).parameters}
    assert taken - {option.split()[0].removeprefix("--") for option in options} <= {
        "folder",
        "images",
        "source",
        "target-dir",
        "repo-id",
        *(["model"] if name == "explain" else []),
    }
    for option, description in options.items():
        if "<" in option:  # those that take a value
            assert "[default: " in description, option


def test_the_help_of_finetune_tells_every_field_of_a_recipe_with_its_default(command):
    _, text, _ = command("finetune", "--help")
    words = " ".join(text.split())
    for name, (default, description) in field_names().items():
        assert description, name
        taken = f"[{'|'.join(field_choices()[name])}] " if name in field_choices() else ""
        assert f"{name} = {default!r} {taken}{' '.join(description.split())}" in words


def test_models_lists_the_short_names_for_people_and_for_programs(command):
    code, text, _ = command("models")
    assert code == 0
    row = next(line for line in text.splitlines() if line.startswith("dinov2-s "))
    assert re.search(r" timm/vit_small_patch14_dinov2\.lvd142m +22\.1 M +518 +46\.7 +\d\S* +apache-2\.0 +81\.1 %", row)
    code, lines, _ = command("models", "--json")
    assert code == 0
    assert [json.loads(line)["name"] for line in lines.splitlines()] == list(KNOWN_MODELS)


def test_a_short_name_is_a_model_and_its_misspelling_is_told(command, monkeypatch):
    def unreachable(name, **_):
        raise OSError(f"no network for {name}")

    monkeypatch.setattr("vithub.hub.checkpoints.snapshot_download", unreachable)
    assert command("predict", "dinov2-s", __file__)[2].strip().endswith("for timm/vit_small_patch14_dinov2.lvd142m")
    code, _, errors = command("predict", "dinov2-m", __file__)
    assert code == 1
    assert "no model at dinov2-m: no such file or folder; did you mean dinov2-s?" in errors


def test_help_names_every_command(command):
    code, text, _ = command("--help")
    assert code == 0
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert command("-h")[1] == text


@pytest.mark.parametrize(("alias", "name"), [("train", "finetune"), ("val", "evaluate")])
def test_a_second_name_is_the_same_command_and_is_told(alias, name, command):
    code, text, errors = command(alias, "--help")
    assert (code, errors) == (0, "")
    assert text.replace(f"vithub {alias}", f"vithub {name}") == command(name, "--help")[1]
    assert f"  {alias}" in command("--help")[1]
    assert f"the same as {name}" in command("--help")[1]


def test_the_package_installs_the_command():
    content = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert content["project"]["scripts"] == {"vithub": "vithub.scripts.command_line:main"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense"),
        (["trian"], "No such command 'trian'. Did you mean 'train'"),
        (["fit"], "No such command 'fit'. Did you mean 'finetune'"),
        (["train", "--epoch", "3"], "No such option:? '?--epoch'?.* --epochs"),
        (["predict"], "FOLDER"),
        (["predict", "."], "IMAGE"),
        (["predict", "--tip", "3", "run", "a.png"], "--tip"),
        (["predict", "--top", "0", "run", "a.png"], "--top"),
        (["finetune", "--epochs", "many"], "--epochs"),
        (["finetune", "--set", "training.lr"], "NAME=VALUE.*training.lr"),
        (["finetune", "--set", "training.lr=[1"], r"training\.lr.*no YAML"),
        (["export", "run", "--max-drop", "-1"], "--max-drop.*got '-1'|-1 is not in the range"),
        (["finetune", "--set", "model.fields={a:1}"], r"a space must follow each colon, .* got '{a:1}'"),
        (["finetune", "--set", "training.rl=1"], "no recipe field 'training.rl'; did you mean training.lr"),
        (["finetune", "--set", "training.lr=-1"], r"training\.lr: .*greater than 0, got -1"),
        (["finetune", "--lr", "-1"], r"training\.lr: .*greater than 0, got -1"),
        (["finetune", "--preset", "best"], r"preset: there is no 'best'; there are .*digits"),
        (["finetune", "--recipe", "none.yaml"], r"none\.yaml"),
        (["finetune", "--set", "model.fields.num_attention_heads=5"], r"num_attention_heads.*5"),
        (["finetune", "--set", "model.fields.drop_path=0.1"], "drop_path.*drop_path_rate"),
        (["finetune", "--set", "model.fields.hidden_size=wide"], "hidden_size.*wide"),
        (["export", "run", "--web"], "--web goes with --format onnx and --output"),
        (["export", "run", "--web-runtime", "npm"], "--web-runtime goes with --web"),
        (["export", "run", "--with-preprocessing", "--format", "openvino"], "--with-preprocessing goes with"),
        (["convert", ".", "b", "--to", "keras"], "--to.*vithub, transformers.*keras"),
    ],
)
def test_wrong_use_exits_with_2_and_tells_what_is_wrong(arguments, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, errors = command(*arguments)
    assert code == 2
    assert printed == ""
    assert re.search(message, " ".join(errors.split())), errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*.*")) == []


FAILURES = (
    "no data", "no model", "no label column", "target is taken", "target is a run", "nothing to resume", "unwritable",
    "nothing to evaluate", "no such split", "labels unknown", "no image", "cut image", "nothing to convert",
    "no config", "conversion onto files", "wrong patches",
)  # fmt: skip


def failures(finished_run, small_vit, photo, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:50])
    run_folder, full = finished_run.folder, tmp_path / "full"
    return {
        "no data": (["finetune", "--data", "/no/such/place", "--output", tmp_path / "a"], "no data set at /no/such"),
        "no model": (["finetune", "--model", "./gone", "--output", tmp_path / "b"], "gone"),
        "no label column": (["finetune", "--label-column", "kind", "--output", tmp_path / "c"], "no label column"),
        "target is taken": (["finetune", "--output", full], "full holds files already"),
        "target is a run": (["finetune", "--output", run_folder], "holds another run"),
        "nothing to resume": (["finetune", "--resume", "--output", tmp_path / "d"], "holds no run to resume"),
        "unwritable": (["finetune", "--output", tmp_path / "broken.png" / "run"], r"broken\.png/run"),
        "nothing to evaluate": (["evaluate", tmp_path / "gone"], "gone"),
        "no such split": (["evaluate", run_folder, "--split", "final"], "no split 'final'"),
        "labels unknown": (["evaluate", run_folder, "--data", "digits"], "does not know the labels 0, 1"),
        "no image": (["predict", run_folder, tmp_path / "gone.png"], r"no image at .*gone\.png"),
        "cut image": (["predict", run_folder, tmp_path / "broken.png"], r"broken\.png: "),
        "nothing to convert": (["convert", tmp_path / "gone", tmp_path / "e"], "gone"),
        "no config": (["convert", full, tmp_path / "f"], r"no config\.json"),
        "conversion onto files": (["convert", small_vit, full], "full holds files already"),
        "wrong patches": (["convert", small_vit, tmp_path / "g", "--patch-size", "0"], "patch_size.*0"),
    }  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_failure_exits_with_1_and_one_line(case, command, finished_run, small_vit, photo, tmp_path):
    arguments, message = failures(finished_run, small_vit, photo, tmp_path)[case]
    before = sorted(tmp_path.rglob("*"))
    code, printed, errors = command(*arguments)
    assert (code, printed) == (1, "")
    lines = [line for line in errors.splitlines() if line]
    assert len(lines) == 1, errors
    assert re.fullmatch(rf"vithub: error: .*{message}.*", lines[0])
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []


def test_an_error_of_the_program_itself_is_not_hidden():
    def fail():
        raise TypeError("a mistake of ours")

    with pytest.raises(TypeError):
        run(fail)


def test_ctrl_c_exits_with_130(command, monkeypatch, finished_run, photo):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vithub.training.prediction.find_images", interrupted)
    code, _, errors = command("predict", finished_run.folder, photo)
    assert code == 130
    assert errors == "vithub: error: interrupted\n"


def test_a_training_from_the_command_line(command, quick, digit_folders, tmp_path):
    out = tmp_path / "run"
    arguments = ["finetune", "--data", digit_folders, "--output", out, *settings(quick), "--seed", 3, "--epochs", 1]
    code, printed, errors = command(*arguments)
    assert (code, printed) == (0, "")
    assert not any(mark in errors for mark in ("Traceback", "\x1b", "\r"))  # plain lines, as this is no terminal
    metrics = json.loads((out / "metrics.json").read_text())
    told = " ".join(errors.split())
    assert f"test accuracy {100 * metrics['test']['accuracy']:.2f} %" in told
    assert "280 train, 40 validation, 80 test images" in told
    recipe = Recipe.from_yaml(out / "recipe.yaml")
    assert (recipe.seed, recipe.training.lr, recipe.training.epochs) == (3, 4e-3, 1)
    assert recipe.model.fields == quick()["model.fields"]
    code, _, errors = command("finetune", "--resume", "--output", out)
    assert code == 0
    assert "resum" in errors
    assert "step 7 of 7" in errors
    code, _, errors = command("finetune", "--resume", "--output", out, "--seed", 4)
    assert code == 2
    assert "seed is 3, not 4" in errors


def test_evaluate_prints_a_table_or_json(command, finished_run, tmp_path):
    code, text, _ = command("evaluate", finished_run.folder)
    assert code == 0
    assert f"accuracy {finished_run.metrics['test']['accuracy']:.2%}" in " ".join(text.split())
    assert all(name in text for name in finished_run.model.config.label2id)
    code, text, _ = command("evaluate", finished_run.folder, "--json", "--workers", 0, "--output", tmp_path / "out")
    assert code == 0
    assert json.loads(text)["metrics"] == finished_run.metrics["test"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(text)


def test_predict_prints_a_table_or_lines_of_json(command, finished_run, photo, digit_folders):
    code, text, errors = command("predict", finished_run.folder, photo, digit_folders / "one", "--json", "--top", 2)
    assert (code, errors) == (0, "")
    lines = [json.loads(line) for line in text.splitlines()]
    files = [str(photo), *map(str, sorted((digit_folders / "one").iterdir()))]
    assert [line["image"] for line in lines] == files
    assert lines == vithub.predict(finished_run.folder, files, top=2)
    code, text, _ = command("predict", finished_run.folder, photo, "--top", 1)
    assert code == 0
    assert lines[0]["predictions"][0]["label"] in text


def test_convert_there_and_back(command, small_vit, tmp_path):
    code, text, _ = command("convert", small_vit, tmp_path / "ours")
    assert code == 0
    assert "tensors" in text
    assert "largest difference" in text
    code, text, _ = command("convert", tmp_path / "ours", tmp_path / "back", "--to", "transformers", "--json")
    assert code == 0
    report = json.loads(text)
    assert report["max_difference"] <= 1e-5
    before, after = (safetensors.torch.load_file(f / "model.safetensors") for f in (small_vit, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    model = vithub.load(tmp_path / "ours")
    assert isinstance(model, vithub.HubViTForImageClassification)


def test_convert_replaces_what_is_there_only_when_asked(command, small_vit, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    assert command("convert", small_vit, tmp_path / "out")[0] == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old.txt"]
    assert command("convert", small_vit, tmp_path / "out", "--overwrite", "--image-size", 36)[0] == 0
    assert vithub.load(tmp_path / "out").config.image_size == 36
    assert not (tmp_path / "out" / "old.txt").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e+3", -2500.0), ("3", 3), ("0.5", 0.5), ("true", True), ("null", None),
        ("", None), ("[0.5, 1e-1]", [0.5, 0.1]), ("{a: 1e-6, b: x}", {"a": 1e-6, "b": "x"}), ("deit-s/8", "deit-s/8"),
        ("'1e5'", "1e5"), ('"null"', "null"), ("a=b", "a=b"), ("nan", "nan"), ("inf", "inf"),
    ],
)  # fmt: skip
def test_values_are_read_as_they_are_meant(text, value):
    (read,) = assignments([f"some.name={text}"]).values()
    assert read == value
    assert type(read) is type(value)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_that_python_prints_is_read_back(number):
    assert assignments([f"training.lr={number!r}", f"seed={abs(int(number))}"]) == {
        "training.lr": number,
        "seed": abs(int(number)),
    }


def test_the_command_in_a_process_of_its_own(finished_run, photo, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vithub.scripts.command_line", "predict", finished_run.folder, photo, "--json"],
        capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["image"] == str(photo)
