"""The report holds what was measured, says only what follows from it, and is whole wherever it is read."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.comparison.comparing import Comparison, compare
from vithub.comparison.cost import CostSettings
from vithub.comparison.measurement import Measurement, Section
from vithub.comparison.report_page import tables
from vithub.comparison.verdict import beyond_chance, short, verdict
from vithub.data.sources import DataError
from vithub.hub.folders import TargetError
from vithub.scripts.command_line import app, run

CNN = "cnn=timm:test_efficientnet@random"
COST = CostSettings(sides=(32, 64, 96), training_sides=(32, 64), rounds=2, batch_size=2, training_batch=2)


def measured(name, quantity, value, low=None, high=None, unit="%", **at):
    interval = None if low is None else (low, high)
    return Measurement(name, quantity, value, unit, "p", 0, interval, at)


@pytest.fixture(scope="module")
def report(finished_run, digit_folders, tmp_path_factory):
    """A run of ours against itself under another name: all that is compared must come out alike."""
    folder = tmp_path_factory.mktemp("reports") / "report"
    models = [f"one={finished_run.folder}", f"other={finished_run.folder}"]
    sections = ("translation", "locality", "robustness")
    found = compare(models, digit_folders, folder, sections=sections, quick=True, images=20, precision="fp32")
    return folder, found


def test_a_model_against_itself_differs_in_nothing(report):
    _, found = report
    for section in found.sections:
        one, other = ([m for m in section.measurements if m.contestant == name] for name in ("one", "other"))
        assert len(one) == len(other) > 0
        for first, second in zip(one, other, strict=True):
            if first.at.get("weights") != "random":
                assert (first.value, first.interval, first.at) == (second.value, second.interval, second.at)
    assert "one and other are not told apart here: 0.0 points of accuracy, within the intervals." in found.verdict


def test_every_number_has_its_unit_protocol_and_command_and_comes_back(report):
    folder, found = report
    content = json.loads((folder / "report.json").read_text())
    assert content == json.loads(json.dumps(found.to_dict()))
    for section in content["sections"]:
        for one in section["measurements"]:
            assert one["unit"]
            assert one["protocol"] in section["protocols"]
            assert one["command"].startswith("vithub compare one=")
            assert one["value"] is not None or one["note"]
    again = Comparison.load(folder)
    assert json.loads(json.dumps(again.to_dict())) == content


def test_the_page_needs_nothing_else_and_the_markdowns_pictures_exist(report):
    folder, found = report
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=['"](?!data:)""", page)
    pictures = sorted(file.name for file in (folder / "pictures").iterdir())
    assert page.count("data:image/png;base64,") == len(pictures) == 6
    text = (folder / "report.md").read_text()
    assert sorted(re.findall(r"\(pictures/([^)]+)\)", text)) == pictures
    for sentence in found.verdict:
        assert sentence in text


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_the_page_opens_in_a_browser(report, browser, scheme, width):
    """Every picture is drawn and described, nothing is asked of a network, and it fits a telephone."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((report[0] / "report.html").as_uri())
    pictures = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length > 0])")
    assert len(pictures) == 6
    assert all(drawn and described for drawn, described in pictures)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, front = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert (brightness(back) > brightness(front)) == (scheme == "light")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(report[0] / "report.html").as_uri()]
    page.close()


def brightness(color):
    """Of a computed colour; one that is not set lets white through."""
    channels = [float(number) for number in re.findall(r"[\d.]+", color)]
    return 765.0 if len(channels) == 4 and channels[3] == 0 else sum(channels[:3])


def test_a_report_is_not_written_over_and_can_be_gone_on_with(report, finished_run, digit_folders):
    folder, found = report
    models = [f"one={finished_run.folder}", f"other={finished_run.folder}"]
    options = {"quick": True, "images": 20, "precision": "fp32"}
    with pytest.raises(TargetError, match="holds a comparison already"):
        compare(models, digit_folders, folder, sections=("locality",), **options)
    with pytest.raises(TargetError, match="holds another comparison: seed 0, not 1"):
        compare(models, digit_folders, folder, sections=("locality",), seed=1, resume=True, **options)
    again = compare(models, digit_folders, folder, sections=("translation", "locality"), resume=True, **options)
    kept = {section.name: section for section in found.sections}
    assert [section.to_dict() for section in again.sections] == [
        kept[name].to_dict() for name in ("translation", "locality")
    ]
    found.save(folder)


def test_cost_needs_no_data_and_everything_else_does(tmp_path):
    found = compare([CNN, "vit=timm:test_vit@random"], sections=("cost",), cost=COST)
    text = " ".join(found.verdict)
    (growth,) = found.sections[0].find("growth exponent", "cnn", of="macs")
    assert growth.value == pytest.approx(1, abs=0.03)  # its classifier does not grow
    assert f"Cost: the operations of cnn grow as pixels^{growth.value:.2f} from 64 to 160 px, its measured time" in text
    assert "Latency of one image, cnn against vit: " in text
    assert found.save(tmp_path / "cost") == tmp_path / "cost"
    assert (tmp_path / "cost/pictures/cost.png").stat().st_size > 10_000
    with pytest.raises(DataError, match="the sections translation need `data`, images with labels"):
        compare([CNN], sections=("cost", "translation"))
    with pytest.raises(ValueError, match="there is no section speed; there are cost, translation"):
        compare([CNN], sections=("speed",))
    with pytest.raises(ValueError, match="the section data needs `output`, a folder"):
        compare([], "digits", sections=("data",))


def test_a_model_that_lacks_a_label_is_told_by_name(digit_folders):
    with pytest.raises(DataError, match="cnn does not know the labels eight, five"):
        compare([CNN], digit_folders, sections=("translation",), images=4)


def test_the_command_refuses_what_it_does_not_know(capsys):
    assert run(lambda: app(["compare", CNN, "--sections", "speed"])) == 2
    assert "--sections takes cost, translation" in capsys.readouterr().err
    assert run(lambda: app(["compare", CNN, "--part", "3/2"])) == 2
    assert run(lambda: app(["compare"])) == 1
    assert "there is nothing to compare" in capsys.readouterr().err


@given(st.floats(0, 100), st.floats(0, 20), st.floats(0, 100), st.floats(0, 20))
def test_a_difference_is_claimed_only_where_intervals_are_apart(a, half_a, b, half_b):
    one = measured("a", "accuracy", a, a - half_a, a + half_a)
    other = measured("b", "accuracy", b, b - half_b, b + half_b)
    apart = abs(a - b) > half_a + half_b
    if abs(abs(a - b) - half_a - half_b) > 1e-9:
        assert beyond_chance(one, other) == beyond_chance(other, one) == apart
    assert not beyond_chance(one, measured("b", "accuracy", b))


def sections_of(accuracy, latency):
    translation = Section("translation", {})
    translation.measurements = [measured(name, "accuracy", *values) for name, values in accuracy.items()]
    cost = Section("cost", {})
    cost.measurements = [measured(name, "latency", ms, unit="ms", side=224, pixels=224) for name, ms in latency.items()]
    return [cost, translation]


def test_the_choice_weighs_time_against_accuracy():
    sides = {"vit": 224, "cnn": 224}
    clear = verdict(sections_of({"vit": (90, 88, 92), "cnn": (80, 77, 83)}, {"vit": 30, "cnn": 10}), sides)
    assert clear[-1].startswith("With time to spare take vit: to take cnn instead costs 10.0 points of accuracy")
    assert "costs 3.0 times the time" in clear[-1]
    close = verdict(sections_of({"vit": (90, 80, 95), "cnn": (88, 78, 93)}, {"vit": 30, "cnn": 10}), sides)
    assert close[-1].startswith(
        "Take cnn unless the 2.0 points of accuracy that vit is ahead, within the intervals here"
    )
    both = verdict(sections_of({"vit": (80, 77, 83), "cnn": (90, 88, 92)}, {"vit": 30, "cnn": 10}), sides)
    assert both[-1].startswith("Take cnn: it is the fastest and has the highest accuracy measured")
    assert verdict([], sides) == []


def test_tables_keep_every_number_and_say_why_one_is_missing():
    section = Section("cost", {"p": "how"})
    section.measurements = [
        measured("a", "latency", 1.234, 1.1, 1.4, unit="ms", side=96),
        measured("a", "latency", 12.34, unit="ms", side=224),
        Measurement("b", "latency", None, "ms", "p", 0, at={"side": 96}, note="too large"),
    ]
    ((caption, heads, rows, notes),) = tables(section)
    assert caption == "latency (ms); p; seed 0"
    assert heads == ["", "a", "b"]
    assert rows == [["side 96", "1.23 (1.1 to 1.4)", "-"], ["side 224", "12.3", ""]]
    assert notes == ["b: too large"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14159, "3.14"), (42.0, "42"), (123.45, "123.5"), (4.6e9, "4.6 G"), (12_345, "12.35 k"), (0.00123, "0.00123")],
)
def test_numbers_are_short(value, text):
    assert short(value) == text
