import io

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vithub.data.images import BadImageError, decode_image

NOISE = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def as_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_colour_is_kept_to_the_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(as_bytes(Image.fromarray(pixels)))), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_upright_rgb_of_the_same_brightness(mode, tmp_path):
    grey = Image.fromarray(RAMP)
    if mode == "I;16":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    elif mode == "1":
        image = grey.point(lambda value: 255 if value >= 128 else 0).convert("1", dither=Image.Dither.NONE)
    else:
        image = grey.convert(mode)
    file = tmp_path / ("image.tif" if mode in ("CMYK", "I", "F") else "image.png")
    image.save(file)
    decoded = decode_image(file)
    assert decoded.mode == "RGB"
    expected = np.where(RAMP >= 128, 255, 0) if mode == "1" else RAMP
    assert np.abs(np.asarray(decoded).astype(int) - expected[:, :, None]).max() <= 1


def test_palette_with_transparency_is_read_without_a_warning():
    image = Image.fromarray(RAMP).convert("P")
    image.info["transparency"] = bytes(range(256))
    assert decode_image(as_bytes(image, transparency=bytes(range(256)))).mode == "RGB"


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_photos_are_turned_as_their_exif_says(orientation, turn):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, :, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(as_bytes(Image.fromarray(pixels), exif=exif.tobytes()))
    assert np.array_equal(np.asarray(decoded), np.rot90(pixels, turn))


def test_every_way_to_hold_an_image_gives_the_same(tmp_path):
    image = Image.fromarray(RAMP)
    image.save(tmp_path / "ramp.png")
    encoded = as_bytes(image)
    row = Dataset.from_dict({"image": [image]}, features=Features({"image": ImageFeature()})).cast_column(
        "image", ImageFeature(decode=False)
    )[0]["image"]
    ways = [image, RAMP, encoded, tmp_path / "ramp.png", str(tmp_path / "ramp.png"), row,
            {"bytes": encoded, "path": None}, {"bytes": None, "path": str(tmp_path / "ramp.png")}]  # fmt: skip
    for way in ways:
        assert np.array_equal(np.asarray(decode_image(way))[:, :, 0], RAMP)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (as_bytes(Image.fromarray(RAMP).resize((64, 64)), "JPEG")[:300], "truncated"),
        (
            as_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)))[:900],
            "truncated",
        ),
        (b"not an image", "not an image in a known format"),
        (b"", "the file is empty"),
        ("/nowhere/photo.jpg", "no such file"),
        (None, "got NoneType"),
        (7, "got int"),
    ],
    ids=["jpeg cut short", "png cut short", "text", "empty", "missing", "none", "number"],
)
def test_what_cannot_be_decoded_is_named(value, reason):
    with pytest.raises(BadImageError, match=rf"row 12: .*(?i:{reason})"):
        decode_image(value, "row 12")


def test_a_file_is_named_by_its_path(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BadImageError, match=r"broken\.jpg: "):
        decode_image({"bytes": None, "path": str(tmp_path / "broken.jpg")}, "row 3")


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(BadImageError, match="decompression bomb"):
        decode_image(as_bytes(Image.fromarray(RAMP)))


@pytest.mark.parametrize(("largest", "kind"), [(1.0, "F"), (255.0, "F"), (65535.0, "F"), (65535, "I"), (65535, "I;16")])
def test_greyscale_of_any_range_has_the_brightness_of_8_bits(largest, kind, tmp_path):
    levels = RAMP.astype(np.float64) / 255 * largest
    levels[0, 0] = largest  # an image that uses its range
    dtype = {"F": np.float32, "I": np.int32, "I;16": np.uint16}[kind]
    Image.fromarray(levels.round().astype(dtype) if kind != "F" else levels.astype(dtype)).save(tmp_path / "x.tif")
    expected = RAMP.copy()
    expected[0, 0] = 255
    for way in (tmp_path / "x.tif", levels.astype(dtype)):
        assert np.abs(np.asarray(decode_image(way)).astype(int) - expected[:, :, None]).max() <= 1


@pytest.mark.parametrize(
    "levels",
    [np.array([[-1.0, 1.0]]), np.array([[0.0, 1e6]]), np.array([[0.0, np.nan]]), np.array([[np.inf, 0.0]]),
     np.array([[-5, 100]]), np.array([[0, 100_000]])],
)  # fmt: skip
def test_greyscale_in_no_known_range_is_refused_and_not_cut(levels, tmp_path):
    Image.fromarray(levels.astype(np.float32 if levels.dtype.kind == "f" else np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(BadImageError, match=r"x\.tif: its pixels run from .* to .* can be read"):
        decode_image({"bytes": None, "path": str(tmp_path / "x.tif")})


@given(low=st.floats(0, 0.4), high=st.floats(0.6, 1))
def test_resampled_numbers_in_0_to_1_may_overshoot_a_little(low, high):
    levels = np.array([[low, high, 1.02, -0.02]], dtype=np.float32)
    found = np.asarray(decode_image(levels))[0, :, 0].astype(int)
    assert np.abs(found - (255 * levels[0]).round().clip(0, 255)).max() <= 1
