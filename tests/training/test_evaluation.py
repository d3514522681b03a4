import io
import json
import logging
import shutil

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from vithub.data.images import BadImageError
from vithub.data.labelled.tables import load_image_data
from vithub.data.sources import DataError
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app, run
from vithub.training.evaluation import result_table
from vithub.training.runtime.progress import QuietReporter

import vithub


@pytest.fixture(scope="module")
def tested_folder(digit_folders, quick, tmp_path_factory):
    """The images of the test split that the run drew, in folders by class."""
    data = load_image_data(str(digit_folders), test_fraction=quick()["data.test_fraction"])
    folder = tmp_path_factory.mktemp("data") / "tested"
    for row in data.test:
        target = folder / data.labels.names[row["label"]]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["image"]["path"], target)
    return folder


@pytest.fixture(scope="module")
def by_path(finished_run, tested_folder):
    """The most likely label of each file."""
    files = sorted(tested_folder.rglob("*.png"))
    answers = (prediction["predictions"][0]["label"] for prediction in vithub.predict(finished_run.folder, files))
    return dict(zip(files, answers, strict=True))


def test_a_folder_of_the_same_images_gives_the_same_figures(finished_run, tested_folder):
    result = vithub.evaluate(finished_run.folder, tested_folder)
    assert result["metrics"] == pytest.approx(finished_run.metrics["test"], rel=1e-6)
    assert result["images"] == 80


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 33])
def test_batches_and_loading_processes_change_nothing(batch_size, workers, finished_run, tested_folder):
    result = vithub.evaluate(finished_run.folder, tested_folder, batch_size=batch_size, workers=workers)
    assert result["metrics"] == pytest.approx(finished_run.metrics["test"], rel=1e-6)


def test_labels_are_matched_by_name_and_not_by_number(finished_run, tested_folder):
    # a table whose labels are numbered in the order of the digits, which is not that of the words
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    files = sorted(tested_folder.rglob("*.png"))
    features = Features({"file": Value("string"), "label": ClassLabel(names=list(words))})
    rows = {"file": [str(file) for file in files], "label": [words.index(file.parent.name) for file in files]}
    result = vithub.evaluate(finished_run.folder, Dataset.from_dict(rows, features=features))
    assert tuple(result["labels"]) == words
    assert result["metrics"] == pytest.approx(finished_run.metrics["test"], rel=1e-6)
    reported = {row["label"]: row for row in finished_run.metrics["per_class"]}
    assert {row["label"]: row for row in result["per_class"]} == reported


def test_data_with_some_of_the_labels_is_judged_as_the_pipeline_answers(finished_run, tested_folder, by_path, tmp_path):
    # an answer that is none of the data's labels is a wrong answer
    for name in ("three", "nine"):
        shutil.copytree(tested_folder / name, tmp_path / "two" / name)
    result = vithub.evaluate(finished_run.folder, tmp_path / "two")
    answers = {file: label for file, label in by_path.items() if file.parent.name in ("three", "nine")}
    assert any(label not in ("three", "nine") for label in answers.values())
    right = sum(file.parent.name == label for file, label in answers.items())
    assert result["metrics"]["accuracy"] == right / len(answers)
    assert set(result["labels"]) == {"three", "nine", *answers.values()}
    assert sum(map(sum, result["confusion"])) == len(answers)
    shown = {row["label"]: row["images"] for row in result["per_class"]}
    assert {name: count for name, count in shown.items() if count} == {"three": 8, "nine": 8}


def test_a_label_that_the_model_does_not_know_is_named(finished_run, tested_folder, tmp_path):
    shutil.copytree(tested_folder, tmp_path / "more")
    (tmp_path / "more" / "zero").rename(tmp_path / "more" / "nought")
    with pytest.raises(DataError, match=r"does not know the label nought; it knows .*eight"):
        vithub.evaluate(finished_run.folder, tmp_path / "more")


def test_results_are_written_to_a_new_folder_and_nowhere_else(finished_run, tested_folder, tmp_path):
    before = sorted(finished_run.folder.rglob("*"))
    result = vithub.evaluate(finished_run.folder, tested_folder, output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(json.dumps(result))
    with Image.open(tmp_path / "out" / "confusion_matrix.png") as picture:
        picture.verify()
    with pytest.raises(TargetError, match="out holds files already"):
        vithub.evaluate(finished_run.folder, tested_folder, output=tmp_path / "out")
    assert sorted(finished_run.folder.rglob("*")) == before


def test_a_split_can_be_chosen(finished_run):
    train = vithub.evaluate(finished_run.folder, split="train")
    assert (train["split"], train["images"]) == ("train", 280)
    with pytest.raises(DataError, match="no split 'final' in digits; `split` must be train or validation or test"):
        vithub.evaluate(finished_run.folder, split="final")


def test_several_labels_per_image_are_judged_label_by_label(multi_label_run, multi_label_digits):
    data = load_image_data(multi_label_digits, test_fraction=0.2)
    result = vithub.evaluate(multi_label_run.folder, data.test)
    assert result["metrics"] == pytest.approx(multi_label_run.metrics["test"], rel=1e-5)
    assert result["confusion"] is None
    assert [row["label"] for row in result["per_class"]] == ["even", "large", "round"]


def test_data_of_another_kind_is_refused(finished_run, multi_label_run, multi_label_digits, tested_folder):
    with pytest.raises(DataError, match=r"any number of labels, and the model .* gives one"):
        vithub.evaluate(finished_run.folder, multi_label_digits)
    with pytest.raises(DataError, match=r"one label, and the model .* gives any number"):
        vithub.evaluate(multi_label_run.folder, tested_folder)


def test_a_folder_that_is_no_model_is_named(tmp_path, finished_run):
    with pytest.raises(CheckpointError, match=r"nothing is no file or folder"):
        vithub.evaluate(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        vithub.evaluate(tmp_path)
    shutil.copytree(finished_run.folder, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").unlink()
    with pytest.raises(DataError, match="its data is not known; name it with `data`"):
        vithub.evaluate(tmp_path / "run")


def test_a_damaged_image_is_named_with_the_way_past_it(finished_run, tested_folder, tmp_path, capsys):
    shutil.copytree(tested_folder, tmp_path / "data")
    victim = min((tmp_path / "data" / "six").iterdir())
    victim.write_bytes(victim.read_bytes()[:60])
    with pytest.raises(BadImageError, match=f"six/{victim.name}: .*; on_bad_image='skip' measures without such images"):
        vithub.evaluate(finished_run.folder, tmp_path / "data")
    assert run(lambda: app(["evaluate", str(finished_run.folder), "--data", str(tmp_path / "data")])) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("; --on-bad-image skip measures without such images and lists them")


def test_the_table_shows_the_figures_and_leaves_names_as_they_are(finished_run, tested_folder):
    result = vithub.evaluate(finished_run.folder, tested_folder)
    result["per_class"][0]["label"] = "[bold]eight[/]"  # no markup
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(result_table(finished_run.folder, result))
    text = console.export_text()
    assert "[bold]eight[/]" in text
    assert f"{result['metrics']['accuracy']:.2%}" in text
    assert f"{result['per_class'][3]['recall']:.1%}" in text


class Breaking(QuietReporter):
    def __init__(self, after):
        self.after = self.seen = after

    def start(self, task, total, done=0):
        self.began = done

    def advance(self, amount=1, **figures):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def test_a_killed_evaluation_goes_on_where_it_was(finished_run, tested_folder, tmp_path):
    options = {"batch_size": 1, "workers": 0, "output": tmp_path / "figures"}
    with pytest.raises(KeyboardInterrupt):
        vithub.evaluate(finished_run.folder, tested_folder, reporter=Breaking(70), **options)
    assert [file.name for file in tmp_path.iterdir()] == [".figures.partial"]
    with pytest.raises(TargetError, match=r"another evaluation.*\"batch_size\": 1.*not.*\"batch_size\": 2"):
        vithub.evaluate(finished_run.folder, tested_folder, resume=True, **options | {"batch_size": 2})
    listener = Breaking(1000)
    result = vithub.evaluate(finished_run.folder, tested_folder, resume=True, reporter=listener, **options)
    assert listener.began == 64
    assert listener.seen - listener.after == 80 - 64
    assert result == vithub.evaluate(finished_run.folder, tested_folder, batch_size=1, workers=0)
    assert [file.name for file in tmp_path.iterdir()] == ["figures"]
    with pytest.raises(ValueError, match="`resume` needs `output`"):
        vithub.evaluate(finished_run.folder, tested_folder, resume=True)


def test_an_evaluation_that_is_not_resumed_begins_anew(finished_run, tested_folder, tmp_path):
    options = {"batch_size": 1, "workers": 0, "output": tmp_path / "figures"}
    with pytest.raises(KeyboardInterrupt):
        vithub.evaluate(finished_run.folder, tested_folder, reporter=Breaking(40), **options)
    listener = Breaking(1000)
    result = vithub.evaluate(finished_run.folder, tested_folder, reporter=listener, **options)
    assert listener.began == 0
    assert result["images"] == sum(map(sum, result["confusion"])) == 80


def test_images_that_cannot_be_decoded_are_left_out_and_listed_when_that_is_asked_for(
    finished_run, tested_folder, tmp_path
):
    folder = shutil.copytree(tested_folder, tmp_path / "some")
    bad = sorted(folder.rglob("*.png"))[7]
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(BadImageError, match=bad.name):
        vithub.evaluate(finished_run.folder, folder)
    result = vithub.evaluate(finished_run.folder, folder, on_bad_image="skip")
    assert result["images"] == 79
    assert [name.split(" (")[0] for name in result["bad_images"]] == [str(bad)]
    assert "1 image could not be decoded" in str(result_table(finished_run.folder, result).caption)
    bad.unlink()
    assert vithub.evaluate(finished_run.folder, folder)["metrics"] == pytest.approx(result["metrics"], rel=1e-6)


def cut(file, _):
    file.write_bytes(file.read_bytes()[:-20])


def flipped(file, _):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def emptied(file, _):
    file.write_bytes(b"")


def other_weights(_, model):
    state = load_file(model / "model.safetensors")
    name = next(name for name in state if name.endswith("classifier.weight"))
    state[name] = -state[name]
    save_file(state, model / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(cut, "is damaged"), (flipped, "is damaged"), (emptied, "is damaged"), (other_weights, "with other weights")],
)
def test_counts_that_do_not_fit_are_counted_anew(damage, reason, finished_run, tested_folder, tmp_path, caplog):
    model = shutil.copytree(finished_run.folder, tmp_path / "model")
    options = {"batch_size": 1, "workers": 0, "output": tmp_path / "figures"}
    with pytest.raises(KeyboardInterrupt):
        vithub.evaluate(model, tested_folder, reporter=Breaking(70), **options)
    damage(tmp_path / ".figures.partial" / "counts-000.safetensors", model)
    listener = Breaking(1000)
    with caplog.at_level(logging.WARNING, "vithub"):
        result = vithub.evaluate(model, tested_folder, resume=True, reporter=listener, **options)
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    assert listener.began == 0
    assert result == vithub.evaluate(model, tested_folder, batch_size=1, workers=0)


def test_a_run_whose_metrics_or_recipe_are_damaged_is_named(finished_run, tmp_path):
    model = shutil.copytree(finished_run.folder, tmp_path / "model")
    for name, text in (("metrics.json", "{"), ("metrics.json", "[]"), ("metrics.json", '{"reported_split": 3}'),
                       ("recipe.yaml", "- 1"), ("recipe.yaml", "data: [\n"), ("recipe.yaml", "data: {workers: x}"),
                       ("recipe.yaml", "data: 3")):  # fmt: skip
        before = (model / name).read_text()
        (model / name).write_text(text)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            vithub.evaluate(model, workers=0)
        (model / name).write_text(before)
