"""A run with exported forms, and photos to measure on."""

import shutil

import pytest


@pytest.fixture(scope="module")
def run_folder(exported_run, tmp_path_factory):
    """A run's folder of its own with exported forms, so that no candidate must be exported first."""
    return shutil.copytree(exported_run, tmp_path_factory.mktemp("optimized") / "run")


@pytest.fixture(scope="module")
def photos(digit_folders):
    return [file for kind in ("two", "seven") for file in sorted((digit_folders / kind).iterdir())[:4]]
