import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from vithub.training.runtime.progress import TerminalReporter, time_left


def told(figures, total=400):
    text = io.StringIO()
    with TerminalReporter(Console(file=text, width=80), every=0.0) as reporter:
        reporter.start("epoch 1/3", total, 100)
        reporter.advance(10, **figures)
        reporter.message("a line that is longer than the eighty columns which a file has where nobody looks at it")
    return text.getvalue()


@given(st.floats(1e-12, 1e12))
def test_no_figure_of_a_run_is_shown_as_zero_or_with_less_than_three_digits(value):
    shown = re.search(r"lr (\S+)", told({"lr": value}))[1]
    assert float(shown) == pytest.approx(value, rel=1e-3)
    assert len(shown) <= 13


def test_a_line_tells_the_time_left_and_is_not_wrapped():
    lines = told({"loss": 2.3026, "lr": 2e-5, "images/s": 41.66}).splitlines()
    assert re.fullmatch(r"epoch 1/3 110/400  loss 2\.303  lr 2e-05  images/s 41\.66  \d+ s left", lines[0])
    assert lines[1].endswith("where nobody looks at it")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s left"), (59.4, "59 s left"), (59.6, "1 min 0 s left"), (3599, "59 min 59 s left"),
        (3600, "1 h 0 min left"), (7170, "2 h 0 min left"), (172_800, "2 d 0 h left"),
    ],
)  # fmt: skip
def test_time_left_has_two_units_at_most(seconds, text):
    assert time_left(seconds) == text
