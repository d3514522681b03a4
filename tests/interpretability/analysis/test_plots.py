"""Figures that can be read: contrast, colour blindness, files."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from vithub.interpretability.analysis.plots import THEMES, paper_figure, tile

# Machado, Oliveira and Fernandes 2009: how the colour-blind see linear RGB, at full severity.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color):
    values = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    bright, dark = sorted((float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (first, second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("name", THEMES)
def test_all_colours_stand_out_from_the_background(name):
    theme = THEMES[name]
    assert contrast(theme.ink, theme.background) > 7
    for color in (theme.faint, *theme.colors):
        assert contrast(color, theme.background) >= 3, color


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("name", THEMES)
def test_the_colour_blind_can_tell_series_apart(name, blindness):
    seen = [lab(np.array(BLINDNESS[blindness]) @ linear(color)) for color in THEMES[name].colors]
    for (one, first), (two, second) in combinations(enumerate(seen), 2):
        # 2.3 is the least difference that is noticed at all (CIE 1976)
        assert np.linalg.norm(first - second) > 10, (THEMES[name].colors[one], THEMES[name].colors[two])


@pytest.mark.parametrize("name", THEMES)
def test_a_figure_has_its_theme_and_size(name, tmp_path):
    with paper_figure(tmp_path / "new" / "figure.png", 2, 1, name) as (figure, _):
        figure.subplots().plot([0, 1])
    with Image.open(tmp_path / "new" / "figure.png") as image:
        assert image.size == (600, 300)
        assert image.convert("RGB").getpixel((1, 1)) == tuple(
            int(THEMES[name].background[place : place + 2], 16) for place in (1, 3, 5)
        )


def test_nothing_is_written_when_drawing_fails_or_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="midway"), paper_figure(tmp_path / "figure.png"):
        raise RuntimeError("midway")
    with pytest.raises(ValueError, match=r"end in one of .png, .pdf, .svg, got"), paper_figure(tmp_path / "figure.gif"):
        pass
    refused = pytest.raises(ValueError, match=r"`theme` must be one of \['light', 'dark'\], got 'sepia'")
    with refused, paper_figure(tmp_path / "figure.png", theme="sepia"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_tiles_lie_row_by_row():
    sheet = tile(np.arange(3)[:, None, None] * np.ones((3, 2, 2)), columns=2)
    assert sheet.shape == (5, 5)
    assert sheet[0, 0] == 0
    assert sheet[0, 4] == 1
    assert sheet[4, 0] == 2
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[4, 4])
