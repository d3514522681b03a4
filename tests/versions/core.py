"""Runs the core of the suite with the lowest or the newest versions of the libraries that pyproject.toml declares.

    python tests/versions/core.py requirements lowest   # what pip has to install
    python tests/versions/core.py run lowest            # the core under this interpreter; writes lowest.json

`make lowest-core` and `make newest` make the environments and call both. Lowest are transformers, datasets, accelerate
and timm, newest all dependencies; torch and torchvision, which take gigabytes, and the tools of the tests are shared
with the main environment. The recorded versions say what they were.
"""

import argparse
import datetime as dt
import json
import platform
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHICH = ("lowest", "newest")
SHARED = ("torch", "torchvision")
LOWERED = ("transformers", "datasets", "accelerate", "timm")
# Tests of what every user meets, and which calls the libraries most; the whole suite is run with the tested versions.
CORE = {
    "tests/configuration": "configurations and their files",
    "tests/modeling": "every model class, its losses, and the same answers as timm's",
    "tests/data/streaming": "streams of datasets",
    "tests/hub/conversion": "weights from and to transformers and timm",
    "tests/hub/bundle": "published folders without the package",
    "tests/hub/test_auto_registration.py": "the Auto classes",
    "tests/hub/push/test_published_form.py": "classes of transformers, published",
    "tests/training/test_finetuning.py": "a finetuning, its folder and its card",
    "tests/training/loop/test_checkpoints.py": "interrupted and resumed trainings",
    "tests/training/loop/test_front_ends.py": "Accelerate's loop and Trainer",
    "tests/training/test_evaluation.py": "evaluation",
    "tests/training/test_dataset_prediction.py": "prediction of data sets",
    "tests/deployment/test_exporting.py": "export to ONNX and OpenVINO",
}


def declared() -> dict[str, str]:
    """Names of the package's dependencies and the lowest version of each."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(one.split(">=") for one in stated)


def requirements(which: str) -> list[str]:
    """Arguments of `pip install`: libraries in their lowest versions, or all dependencies upgraded."""
    if which == "newest":
        return ["--upgrade", *(name for name in declared() if name not in SHARED)]
    return [f"{name}=={declared()[name]}" for name in LOWERED]


class Counted:
    """Plugin of pytest that counts outcomes: a test fails where any of its phases does."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: object) -> None:
        before, now = self.outcomes.get(report.nodeid, "passed"), report.outcome
        self.outcomes[report.nodeid] = before if before != "passed" else now

    def counts(self) -> dict[str, int]:
        found = list(self.outcomes.values())
        return {outcome: found.count(outcome) for outcome in ("passed", "failed", "skipped")}


def run(which: str, options: list[str]) -> int:
    """Runs the core and records what came of it; returns pytest's exit code."""
    import pytest

    sys.path[0] = str(ROOT)  # as `python -m pytest` has it, for processes that import a test's module
    counted, begun = Counted(), time.perf_counter()
    chosen = options or [str(ROOT / name) for name in CORE]
    if which == "lowest":  # older libraries use what a newer torch deprecates, which is no fault of this package
        chosen = ["--override-ini=filterwarnings=", *chosen]
    code = pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *chosen], [counted])
    result = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in sorted(declared())},
        "tests": counted.counts(),
        "seconds": round(time.perf_counter() - begun),
    }
    print(json.dumps(result))
    if not options and code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # not one that was broken off
        (Path(__file__).parent / f"{which}.json").write_text(json.dumps(result, indent=1) + "\n")
    return int(code)


def main() -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("requirements", "run"))
    parser.add_argument("which", choices=WHICH)
    parser.add_argument("options", nargs="*", help="of pytest, in place of the core; nothing is recorded then")
    given = parser.parse_args()
    if given.what == "run":
        return run(given.which, given.options)
    print(" ".join(requirements(given.which)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
