"""What a terminal gets: names of classes, files and folders are shown in one line and never act on it."""

import io
import json
import logging
import os
import sys

import numpy as np
import PIL.Image
import processes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from vithub.data.boxes.report import check_data
from vithub.data.text.terminal_text import visible
from vithub.hub.push.files import PublishFile
from vithub.hub.push.report import PublishReport
from vithub.scripts.check_data_command import print_report
from vithub.scripts.command_line import run
from vithub.scripts.printing import LineFormatter, say
from vithub.scripts.publish_command import file_table
from vithub.training.prediction import prediction_table
from vithub.training.runtime.progress import TerminalReporter
from vithub.training.tasks.classification.saved_evaluation import classifier_table
from vithub.training.tasks.detection.saved_evaluation import detection_table

ODD = "[red]rose[/]\x1b[31m\x1b]0;title\x07\r\n\x9b2J\u202e\u2066end"
names = st.just(ODD) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


def written(*renderables):
    """What a wide terminal gets, colours left out."""
    file = io.StringIO()
    console = Console(file=file, width=1000, force_terminal=True, color_system=None)
    for renderable in renderables:
        console.print(renderable)
    return file.getvalue()


def check(text, *expected):
    assert all(visible(char) == char or char == "\n" for char in text), repr(text)
    for name in expected:
        assert "".join(visible(name).split()) in "".join(text.split())  # a title is folded to the table's width


@given(image=names, label=names)
def test_predictions(image, label):
    rows = [{"image": image, "predictions": [{"label": label, "score": 0.5}, {"label": "other", "score": 0.25}]}]
    check(written(prediction_table(rows)), image, label)


@given(data=names, label=names)
def test_results(data, label):
    metrics = {"accuracy": 0.5, "loss": 1.0, "macro_f1": 0.5, "top5_accuracy": 0.5}
    row = {"label": label, "images": 3, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    result = {"data": data, "split": "test", "images": 3, "metrics": metrics, "per_class": [row], "labels": [label],
              "bad_images": []}  # fmt: skip
    check(written(classifier_table(result)), data, label)
    figures = dict.fromkeys(("map", "map_50", "map_75", "mar_100", "map_small", "map_medium", "map_large"), 0.5)
    errors = {"threshold": 0.5, "counts": {"correct": 1}}
    boxes = {"label": label, "boxes": 2, **figures}
    check(written(detection_table({**result, "boxes": 2, "metrics": figures, "errors": errors, "per_class": [boxes]})),
          data, label)  # fmt: skip


@given(path=names)
def test_files_to_send(path):
    check(written(file_table(PublishReport("a/b", [PublishFile(path, 3, True, "because")]))), path)


@given(text=names)
def test_lines_messages_and_log_records(text):
    file = io.StringIO()
    TerminalReporter(Console(file=file, width=1000, force_terminal=True, color_system=None)).message(text)
    check(file.getvalue())
    record = logging.LogRecord("vithub.x", logging.WARNING, "", 1, "%s was edited", (text,), None)
    line = LineFormatter("%(levelname)s: %(message)s").format(record)
    assert "\n" not in line
    check(line, text)


def test_errors_and_lines(capsys):
    def fail():
        raise FileNotFoundError(2, "no such file", ODD)

    assert run(fail) == 1
    say(f"into {ODD}")
    captured = capsys.readouterr()
    check(captured.err)
    check(captured.out)
    assert captured.err.count("\n") == 1
    assert r"\x1b[31m" in captured.out


def test_a_report_of_boxes(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        PIL.Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / split / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 60, 60], "area": 9, "iscrowd": 0}],
        "categories": [{"id": 1, "name": ODD}],
    }
    for split in ("train", "val"):
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    file = io.StringIO()
    print_report(check_data(tmp_path), Console(file=file, width=1000, force_terminal=True, color_system=None))
    check(file.getvalue(), ODD)


@pytest.mark.skipif(sys.platform == "win32", reason="no file there has such a name")
def test_the_command_in_a_process(tmp_path):
    folder = tmp_path / "\x1b[31mrun\n"
    folder.mkdir()
    (folder / "config.json").write_text("[]")
    command = ["publish", folder, "a/b", "--dry-run"]
    done = processes.run(processes.COMMAND, command, env={**os.environ, "FORCE_COLOR": "1"})
    assert done.returncode == 1
    check(done.stderr)
    assert r"\x1b[31mrun" in done.stderr
    assert done.stderr.count("\n") == 1
