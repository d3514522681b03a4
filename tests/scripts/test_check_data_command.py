"""`vithub check-data` on labelled photos: exit codes, what it prints, and names that stay text."""

import json
import re

import pytest
from PIL import Image
from smooth_photos import smooth_photo
from vithub.scripts.command_line import app, run

HOSTILE = "<script>alert(1) [red]\x1b[31m"


@pytest.fixture
def photos(tmp_path):
    """Two splits of two classes, one of which has a hostile name; without a fault."""
    root, seed = tmp_path / "set", 0
    for split in ("train", "val"):
        for label in ("rose", HOSTILE):
            (root / split / label).mkdir(parents=True)
            for number in range(5):
                seed += 1
                smooth_photo(seed).save(root / split / label / f"{number}.png")
    return root


def command(*words):
    return run(lambda: app(["check-data", *map(str, words)]))


def test_exit_codes_and_reports(photos, tmp_path, capsys):
    assert command(photos, "--json") == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    Image.new("RGB", (72, 54)).save(photos / "train" / "rose" / "blank.png")
    assert command(photos, "--output", tmp_path / "report") == 0
    told = capsys.readouterr().out
    assert "warning: 1 x blank image" in told
    assert "can be trained on" in told
    assert "\x1b" not in told
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    (photos / "val" / "rose" / "0.png").write_bytes(b"no image")
    assert command(photos, "--examples", 0) == 1
    told = capsys.readouterr().out
    assert "error: 1 x bad image" in told
    assert "must not be trained on" in told
    assert command(photos, "--output", tmp_path / "report") == 1  # holds files already


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "segmentation"], "--task takes classification or detection, got 'segmentation'"),
        (["--label-column", "label", "--num-queries", "5"], "--label-column is for photos with labels, --num-queries"),
        (["--task", "detection", "--streaming"], "--streaming is for photos with labels, --task detection for boxes"),
        (["--task", "classification", "--repair"], "--task classification is for photos with labels, --repair for"),
        (["--model", ".", "--headers-only"], "--model decodes the images, which --headers-only leaves out"),
    ],
)
def test_wrong_use(words, said, photos, capsys):
    assert command(photos, *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_photos_have_no_boxes_where_boxes_are_asked_for(photos, capsys):
    assert command(photos, "--num-queries", 5) == 1
    assert "holds no boxes" in capsys.readouterr().err
