"""What is written as JSON is JSON: infinite numbers and those that are none become null."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.data.text.json_text import json_text

ROOT = Path(__file__).parents[3]
ROOMS = ("configuration", "modeling", "data", "hub", "interpretability", "training", "comparison", "scripts")
# Files that write JSON which holds no measured number, or which only this package reads.
PLAIN = {
    "data/table_identity.py",
    "hub/bundle/bundle_check.py",
    "hub/bundle/clean_process.py",
    "hub/bundle/code_bundle.py",
    "hub/bundle/remote_code.py",
    "hub/card/merging.py",
    "hub/conversion/convert.py",
    "hub/conversion/timm_configs.py",
    "interpretability/faithfulness/protocol.py",
    "training/loop/checkpoints.py",
    "training/optim/lora.py",
    "training/prediction_parts.py",
    "training/recipe/sections.py",
    "training/tasks/partial_counts.py",
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers() | st.floats(), inner),
)


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


def same(read, content):
    if isinstance(content, dict):
        assert len(read) <= len(content)  # 1 and "1" are one key of JSON
        return all(value is None or not isinstance(value, float) or value == value for value in read.values())
    if isinstance(content, list | tuple):
        return all(same(one, other) for one, other in zip(read, content, strict=True))
    if isinstance(content, float) and content - content != 0:
        return read is None
    return read == content


@given(values)
def test_a_strict_parser_reads_the_same_with_null_for_what_is_not_finite(content):
    assert same(json.loads(json_text(content), parse_constant=refuse), content)


@pytest.mark.parametrize("room", ROOMS)
def test_results_are_written_by_it(room):
    for file in sorted((ROOT / room).rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name in PLAIN or name == "data/text/json_text.py":
            continue
        calls = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        written = [call for call in calls if ast.unparse(call.func) in ("json.dumps", "json.dump")]
        assert not written, f"{name}, line {written[0].lineno}: use json_text"
