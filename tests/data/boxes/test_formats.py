import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from vithub.data.boxes.formats import ORDERS, BoxFormat, guess_format
from vithub.data.image_headers import ImageHeader, read_header, turn_boxes

SIZE = (640.0, 480.0)


def written(corners, order, unit="pixels", size=SIZE):
    """Corners as a format writes them; the reverse of `BoxFormat.corners`, by hand."""
    left, top, right, bottom = corners.T
    width, height = right - left, bottom - top
    values = {
        "xyxy": (left, top, right, bottom),
        "yxyx": (top, left, bottom, right),
        "xywh": (left, top, width, height),
        "yxhw": (top, left, height, width),
        "cxcywh": (left + width / 2, top + height / 2, width, height),
    }[order]
    boxes = np.stack(values, axis=1)
    if unit == "relative":
        boxes = boxes / np.array([*size, *size] if order[0] != "y" else [*size[::-1], *size[::-1]])
    return boxes


def scattered(count, seed=0):
    """Corners of boxes that lie all over an image of `SIZE`, (count, 4)."""
    draws = np.random.default_rng(seed)
    first = draws.uniform(0, 0.9, (count, 2)) * SIZE
    second = first + draws.uniform(0.05, 1, (count, 2)) * (np.array(SIZE) - first)
    return np.concatenate([first, second], axis=1)


@pytest.mark.parametrize("unit", ["pixels", "relative"])
@pytest.mark.parametrize("order", ORDERS)
@given(seed=st.integers(0, 10**6))
def test_what_a_format_writes_it_reads(order, unit, seed):
    corners, sizes = scattered(5, seed), np.tile(SIZE, (5, 1))
    boxes = written(corners, order, unit)
    np.testing.assert_allclose(BoxFormat(order, unit).corners(boxes, sizes), corners, rtol=0, atol=1e-9)


@pytest.mark.parametrize("usual", ["xywh", "xyxy", "cxcywh"])
# relative boxes look the same with their axes swapped
@pytest.mark.parametrize(
    ("order", "unit"), [*((o, "pixels") for o in ORDERS), *((o, "relative") for o in ORDERS if o[0] != "y")]
)
def test_the_format_of_scattered_boxes_is_found_whatever_is_usual(order, unit, usual):
    boxes = written(scattered(200), order, unit)
    guess = guess_format(boxes, np.tile(SIZE, (200, 1)), BoxFormat(usual))
    assert guess.format == BoxFormat(order, unit)
    assert guess.contradicts == (guess.format != guess.usual)
    assert not guess.rivals


def test_one_bad_box_does_not_change_the_format():
    boxes = written(scattered(50), "xywh")
    boxes[7] = [600, 400, 300, 300]
    guess = guess_format(boxes, np.tile(SIZE, (50, 1)), BoxFormat("xywh"))
    assert guess.format == BoxFormat("xywh")
    assert not guess.contradicts


def test_boxes_that_fit_two_formats_name_both_and_areas_decide():
    corners = np.array([[10.0, 10, 300, 250]] * 12) + np.arange(12)[:, None]
    boxes, sizes = written(corners, "xyxy"), np.tile(SIZE, (12, 1))
    undecided = guess_format(boxes, sizes, BoxFormat("xywh"))
    assert undecided.format == BoxFormat("xywh")
    assert "xyxy pixels" in undecided.rivals
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    decided = guess_format(boxes, sizes, BoxFormat("xywh"), areas)
    assert decided.format == BoxFormat("xyxy")
    assert decided.contradicts
    assert not decided.rivals


def test_no_boxes_keep_the_usual_format():
    guess = guess_format(np.empty((0, 4)), np.empty((0, 2)), BoxFormat("xyxy"))
    assert guess.format == BoxFormat("xyxy")
    assert "no boxes" in str(guess)


@pytest.mark.parametrize("text", ["xywz", "xywh inches", "", "xywh pixels please"])
def test_a_format_that_does_not_exist_is_told(text):
    with pytest.raises(ValueError, match="box format"):
        BoxFormat.parse(text)
    assert BoxFormat.parse("cxcywh, relative") == BoxFormat("cxcywh", "relative")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_turned_as_pillow_turns_the_image(orientation, tmp_path):
    pixels = np.zeros((20, 30), dtype=np.uint8)
    pixels[3:8, 5:17] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    header = read_header(tmp_path / "a.png")
    assert header == ImageHeader(30, 20, orientation)
    with Image.open(tmp_path / "a.png") as opened:
        upright = ImageOps.exif_transpose(opened)
    assert upright.size == header.upright
    rows, columns = np.nonzero(np.asarray(upright))
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert turn_boxes(np.array([[5.0, 3, 17, 8]]), header).tolist() == [expected]
