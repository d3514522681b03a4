"""Tiles cover a picture with the overlap that was asked for, and wrong options end in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vithub.training.tasks.tiling import LEAST_SIDE, Tiling, tiling_of

SIDES = st.integers(LEAST_SIDE, 300)


@given(st.integers(1, 900), st.integers(1, 900), SIDES, SIDES, st.floats(0, 0.8))
def test_tiles_cover_the_picture_and_overlap_by_what_was_asked(height, width, tall, wide, overlap):
    regions = Tiling((tall, wide), overlap).regions(height, width)
    assert len({(right - left, bottom - top) for left, top, right, bottom in regions}) == 1
    for sides, side, whole in (({r[0::2] for r in regions}, wide, width), ({r[1::2] for r in regions}, tall, height)):
        first, *others = spans = sorted(sides)
        assert first[0] == 0
        assert spans[-1][1] == whole
        for (_, end), (start, _) in zip(spans, others, strict=False):
            assert end - start >= int(side * overlap - 1e-6)
        # one tile less would not reach: SAHI's number of tiles
        assert len(spans) == 1 or side + (len(spans) - 2) * max(1, int(side * (1 - overlap) + 1e-9)) < whole


@given(st.integers(100, 600), st.integers(100, 600), st.data())
def test_a_box_no_larger_than_the_overlap_lies_whole_in_a_tile(height, width, data):
    tiling = Tiling((100, 80), 0.25)
    box_width, box_height = data.draw(st.floats(1, 20)), data.draw(st.floats(1, 25))
    left, top = data.draw(st.floats(0, width - box_width)), data.draw(st.floats(0, height - box_height))
    assert any(
        x0 <= left and y0 <= top and left + box_width <= x1 and top + box_height <= y1
        for x0, y0, x1, y1 in tiling.regions(height, width)
    )


def test_a_picture_that_fits_is_one_region_and_sizes_are_read_as_height_by_width():
    assert tiling_of("64x48").tile_hw == (64, 48) == tiling_of((64, 48)).tile_hw
    assert tiling_of("64").tile_hw == (64, 64) == tiling_of(64).tile_hw
    assert tiling_of("64x48").regions(64, 48) == [(0, 0, 48, 64)]
    assert tiling_of("64x48").regions(10, 20) == [(0, 0, 20, 10)]
    assert len(tiling_of("64x48", 0.0).regions(48, 64)) == 2  # turned, it does not fit
    assert tiling_of(500, 0.2).regions(500, 900) == [(0, 0, 500, 500), (400, 0, 900, 500)]
    assert tiling_of(None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": 512, "tile_overlap": 1.0}, r"`tile_overlap` must be a share of a tile, 0 to below 1, got 1\.0"),
        ({"tiles": 512, "tile_overlap": -0.1}, r"`tile_overlap` must be .* got -0\.1"),
        ({"tiles": 512, "tile_overlap": float("nan")}, r"`tile_overlap` must be .* got nan"),
        ({"tiles": "3x3"}, r"`tiles` is the size of a tile in pixels, .* at least 32; got '3x3'"),
        ({"tiles": "512x"}, "got '512x'"),
        ({"tiles": 0}, "got 0"),
        ({"tiles": True}, "got True"),
        ({"tiles": (64, 64, 64)}, "got"),
        ({"tiles": (64.0, 64)}, "got"),
        ({"tiles": 64, "tile_merge": "wbf"}, "`tile_merge` must be nmm-ios, nmm-iou, nms-ios or nms-iou, got 'wbf'"),
        ({"tiles": None, "tile_overlap": 0.2}, "`tile_overlap` has no effect without `tiles`"),
        ({"tiles": None, "tiles_only": True}, "`tiles_only` has no effect without `tiles`"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        tiling_of(**options)


def test_a_picture_that_would_become_too_many_tiles_is_refused_before_they_are_made():
    with pytest.raises(
        ValueError, match=r"`tiles` 32x32 with an overlap of 0\.99 makes 99,361,024 tiles .* 9999 x 9999"
    ):
        tiling_of(32, 0.99).regions(9999, 9999)
