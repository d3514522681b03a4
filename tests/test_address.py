"""One field of pyproject.toml states the address of the repository, and everything else agrees with it."""

import json
import re
import subprocess
from importlib.metadata import metadata
from pathlib import Path

import pytest
from notebook_checks import load_program

ROOT = Path(__file__).parents[1]
HOSTED = "https://colab.research.google.com/github"


@pytest.fixture(scope="module")
def address():
    return load_program(ROOT / "docs" / "address.py", "docs_address")


def test_all_that_names_a_repository_of_this_name_names_the_one_address(address):
    named = address.repository()
    assert metadata("vithub").get_all("Project-URL") in (None, [f"Repository, https://github.com/{named}"])
    stating = {file.relative_to(ROOT).as_posix() for file in address.stating()}
    notebooks = {f"docs/notebooks/{file.name}" for file in (ROOT / "docs/notebooks").glob("*.ipynb")}
    assert stating > notebooks | {"pyproject.toml", "examples/finetune_job.py"}
    mention = re.compile(rf"github(?:\.com)?/([\w-]+/{named.partition('/')[2]})\b")
    files = [*ROOT.glob("*.md"), *ROOT.glob("*.cff"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb")]
    for file in (*files, *ROOT.glob("examples/*")):
        assert set(mention.findall(file.read_text(encoding="utf-8"))) <= {named}, file
    for name in notebooks:
        assert f"{HOSTED}/{named}/blob/main/{name}" in (ROOT / name).read_text(encoding="utf-8")


def test_one_command_changes_all(address, tmp_path):
    old, before = address.repository(), {}
    for file in address.stating():
        place = tmp_path / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        before[place] = file.read_text(encoding="utf-8")
        place.write_text(before[place], encoding="utf-8")
    (tmp_path / "other.md").write_text("https://github.com/someone/else and OWNER/vithub in words\n")
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert set(address.move("ada/photo-models", tmp_path)) == set(before)
    assert address.repository(tmp_path) == "ada/photo-models"
    assert (tmp_path / "other.md").read_text() == "https://github.com/someone/else and OWNER/vithub in words\n"
    for place, text in before.items():
        assert place.read_text(encoding="utf-8") == text.replace(old, "ada/photo-models"), place
        if place.suffix == ".ipynb":
            json.loads(place.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=r"a repository is OWNER/NAME, got 'https://github.com/ada/x'"):
        address.move("https://github.com/ada/x", tmp_path)


def test_no_page_links_to_a_stand_in(address):
    assert not address.is_known("OWNER/vithub")
    assert address.is_known("ada/vithub")
