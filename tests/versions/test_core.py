"""The core of the suite, and the versions that it is run with."""

import importlib.util
from pathlib import Path

SPECIFICATION = importlib.util.spec_from_file_location("vithub_core_tests", Path(__file__).with_name("core.py"))
core = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(core)


def test_what_the_core_names_exists():
    assert [name for name in core.CORE if not (core.ROOT / name).exists()] == []


def test_neither_form_installs_torch_and_the_lowest_is_what_pyproject_declares():
    text = (core.ROOT / "pyproject.toml").read_text()
    lowest, newest = core.requirements("lowest"), core.requirements("newest")
    assert len(lowest) == 4
    assert all(f'"{pin.replace("==", ">=")}"' in text for pin in lowest)
    assert {pin.split("==")[0] for pin in lowest} < set(newest)
    assert not [name for name in (*lowest, *newest) if name.startswith("torch")]
