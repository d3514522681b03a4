"""Exported runs that the tests of this room share; they copy a folder before they change it."""

import shutil

import pytest
from vithub.deployment.exporting import export


@pytest.fixture(scope="session")
def exported_run(once, finished_run):
    """A classifier's run with its forms in fp32, exported once for all parallel processes."""
    return once("exported-run", lambda folder: _export(finished_run, folder))


@pytest.fixture(scope="session")
def exported_detector(once, detector_run):
    """A detector's run with its forms in fp32, exported once for all parallel processes."""
    return once("exported-detector", lambda folder: _export(detector_run, folder))


def _export(run, folder):
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "logs"))
    export(folder, "onnx")
    export(folder, "openvino")
