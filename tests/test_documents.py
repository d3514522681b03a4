"""The code blocks of README and docs run as they stand, in one folder per document, from top to bottom.

A block after a comment `<!-- not run: why -->` is left out. The pages of docs/tour are not among them: their code needs
the first page, and tests/test_tour.py runs all of it once.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from pictures import save_blank
from PIL import Image
from transformers import BitImageProcessorPil, DINOv3ViTConfig, DINOv3ViTModel, ViTConfig, ViTForImageClassification
from vithub.configuration.configuration_vit import PRESETS
from vithub.scripts.command_line import app, run

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/howto").glob("*.md"))]
BLOCK = re.compile(r"(?P<skip><!-- not run: [^>]+ -->\n+)?```(?P<kind>\w+)\n(?P<code>.*?)```", re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the documents name: `photos` of three classes, a `checkpoint` of transformers, and `blood`."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for channel, name in enumerate(("daisy", "rose", "tulip")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draws.integers(0, 120, (24, 32, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    _write_boxes(tmp_path / "blood", draws)
    torch.manual_seed(0)
    names = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8,
        layer_norm_eps=1e-6,
        **names,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "checkpoint")
    BitImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "checkpoint"
    )
    dinov3 = DINOv3ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                             image_size=32, patch_size=8, num_register_tokens=4)  # fmt: skip
    DINOv3ViTModel(dinov3).save_pretrained(tmp_path / "dinov3")
    return tmp_path


def _write_boxes(folder, draws):
    """A YOLO data set of bright squares (cells) and stripes (rods) on a dark ground."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(20):
        pixels, lines = draws.integers(0, 60, (48, 64, 3), dtype=np.uint8), []
        for kind, (height, width) in enumerate(((10, 10), (5, 20))):
            top, left = int(draws.integers(0, 48 - height)), int(draws.integers(0, 64 - width))
            pixels[top : top + height, left : left + width, kind] += 180
            lines.append(f"{kind} {(left + width / 2) / 64} {(top + height / 2) / 48} {width / 64} {height / 48}")
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text("train: images\nnames: [cell, rod]\n")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_code_blocks_run(document, workplace, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", save_blank)  # no block looks at them
    monkeypatch.setitem(PRESETS, "Ti", PRESETS["Ti"] | {"num_hidden_layers": 2})  # what is exported and trained here
    for block in BLOCK.finditer(document.read_text(encoding="utf-8")):
        if block["skip"]:
            continue
        if block["kind"] == "python":
            exec(compile(block["code"], document.name, "exec"), {"__name__": "__main__"})
        elif block["kind"] == "bash":
            for line in block["code"].replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["vithub"]:
                    assert run(lambda: app(words[1:])) == 0, line  # noqa: B023


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda f: f.name
)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_the_readme_has_its_five_recipes_and_its_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\*\*(\d)\. ", text, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert (ROOT / "docs/pictures/demo.png").is_file()
