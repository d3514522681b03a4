"""The sdist and the wheel: what they contain, and a training by the wheel alone in a clean environment."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
RELEASED_CARDS = ("model_cards/bccd/", "model_cards/flowers5/")  # to read, not to install
BUILD = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def tracked_files():
    return run("git", "ls-files", cwd=ROOT).splitlines()


def unpacked(archive, folder):
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / f"vithub-{VERSION}"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist, made of the tracked files, and the wheel, made of the sdist."""
    folder = tmp_path_factory.mktemp("release")
    for name in tracked_files():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    run(sys.executable, "-c", BUILD, "build_sdist", folder, cwd=folder / "source")
    sdist = folder / f"vithub-{VERSION}.tar.gz"
    run(sys.executable, "-c", BUILD, "build_wheel", folder, cwd=unpacked(sdist, folder))
    yield sdist, folder / f"vithub-{VERSION}-py3-none-any.whl"
    shutil.rmtree(folder)


def test_the_wheel_contains_every_file_of_every_room_and_nothing_else(archives):
    rooms = PROJECT["tool"]["setuptools"]["package-dir"]  # folder by package
    expected = {
        f"{package.replace('.', '/')}/{name.removeprefix(folder + '/')}"
        for name in tracked_files()
        for package, folder in rooms.items()
        if name.startswith(folder + "/") and not name.startswith(RELEASED_CARDS)
    }
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_the_sdist_contains_what_the_installation_of_the_readme_needs(archives):
    with tarfile.open(archives[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "pyproject.toml"} <= names
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_the_change_log_has_a_section_for_this_version():
    assert f"\n## {VERSION} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_clean_environment_trains_with_the_wheel_alone(archives, quick, tmp_path):
    environment, command = tmp_path / "environment", tmp_path / "environment" / "bin" / "vithub"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    install = ("install", "-q", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", archives[1])
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=tmp_path)
    # The dependencies are those of this environment; its own vithub, which is installed as editable, is not seen.
    own = next((environment / "lib").glob("python*/site-packages"))
    shared = Path(torch.__file__).parents[1]
    (own / "shared.pth").write_text(f"{shared}\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    values = {"preset": "digits"} | _nested(quick({"training.max_steps": 2}))
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    run(command, "finetune", "--recipe", recipe, "--output", "run", cwd=tmp_path)
    assert list((own / "vithub" / "training").rglob("*.pyc"))  # the installed modules were those that ran
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["versions"]["vithub"] == VERSION
    assert (tmp_path / "run" / "README.md").read_text(encoding="utf-8").startswith("---\n")


def _nested(values):
    """`{"model.source": ...}` as a recipe's sections."""
    sections = {}
    for name, value in values.items():
        section, _, field = name.partition(".")
        sections.setdefault(section, {})[field] = value
    return sections
