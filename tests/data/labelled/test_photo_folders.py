"""Folders of photos as people have them: HEIC, stray files, names that are not UTF-8."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from patience import PATIENCE
from PIL import Image
from vithub.data.boxes.images import read_box_images
from vithub.data.boxes.loading import load_box_data
from vithub.data.image_headers import read_header
from vithub.data.images import BadImageError, decode_image, real_path, shown_path, stored_path
from vithub.data.labelled.dataset import LabelledImages
from vithub.data.labelled.tables import load_image_data
from vithub.data.sources import DataError

RAMP = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((8, 8), dtype=np.uint8))
# Without pillow-heif: a folder is read as `load_image_data` reads it, and a file is decoded.
WITHOUT = """
import json, sys
sys.modules["pillow_heif"] = None
from vithub.data.labelled.tables import load_image_data
from vithub.data.images import decode_image
found = []
for act in (lambda: load_image_data(sys.argv[1]).notes, lambda: load_image_data(sys.argv[2]).notes,
            lambda: decode_image(sys.argv[3], sys.argv[3])):
    try:
        found.append(act())
    except ValueError as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""


def photo(file, value=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.roll(RAMP, value)).convert("RGB").save(file)
    return file


def pets(folder, names=("cat", "dog"), images=6):
    for place, name in enumerate(names):
        for number in range(images):
            photo(folder / name / f"{number}.png", 8 * number + place)
    return folder


@pytest.fixture
def heic(tmp_path):
    """Writes a HEIC file."""
    pytest.importorskip("pillow_heif", reason="HEIC is written by pillow-heif")

    def make(file, **options):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RAMP).convert("RGB").save(file, format="HEIF", quality=90, **options)
        return file

    return make


def test_heic_is_read_where_pillow_heif_is_there(heic, tmp_path):
    folder = pets(tmp_path / "pets")
    for number in range(4):
        heic(folder / "dog" / f"IMG_{number}.HEIC")
    data = load_image_data(folder)
    assert sum(data.sizes.values()) == 16
    assert not any("not read" in note for note in data.notes)
    image = decode_image(folder / "dog" / "IMG_0.HEIC")
    assert image.size == (64, 64)
    assert np.abs(np.asarray(image)[..., 0].astype(int) - RAMP).mean() < 4  # it is compressed
    assert read_header(folder / "dog" / "IMG_0.HEIC").upright == (64, 64)


def test_without_pillow_heif_its_files_are_counted_and_the_extra_is_named(heic, tmp_path):
    some, only = pets(tmp_path / "pets"), pets(tmp_path / "others", ("cat",))
    for number in range(4):
        heic(some / "dog" / f"IMG_{number}.HEIC")
        file = heic(only / "dog" / f"IMG_{number}.heic")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(some), str(only), str(file)],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notes, refused, undecoded = json.loads(done.stdout)
    hint = "HEIC needs pillow-heif: pip install 'vithub[heic]'"
    assert notes[0] == f"4 files in pets were not read: 4 .heic ({hint})"
    assert notes[0] in done.stderr  # it is logged, not only kept for the card
    assert refused.startswith(f"DataError: the class 'dog' has no images in {only / 'dog'}, only 4 .heic ({hint})")
    assert undecoded == f"BadImageError: {file}: a HEIC image; {hint}"


def test_what_is_not_read_is_counted_by_extension_and_what_lies_outside_is_named(tmp_path, caplog):
    folder = pets(tmp_path / "pets")
    for name in ("a.RAW", "b.raw", "notes.txt", "LICENSE", ".DS_Store", "Thumbs.db", "._0.png"):
        (folder / "cat" / name).write_bytes(b"x")
    photo(folder / "stray.gif")
    photo(folder / "dog" / "moving.gif")
    data = load_image_data(folder)
    assert sum(data.sizes.values()) == 13
    assert data.notes[:3] == [
        "4 files in pets were not read: 2 .raw, 1 .txt, 1 without an extension",
        "1 image in pets outside of the class folders was not read: stray.gif",
        "1 .gif file is in pets, of which the first picture is read: moving.gif",
    ]
    assert [record.getMessage() for record in caplog.records if record.name == "vithub"] == data.notes[:3]


def test_a_class_of_unreadable_files_is_named_with_what_it_holds(tmp_path):
    folder = pets(tmp_path / "pets", ("cat",))
    (folder / "dog").mkdir()
    for number in range(3):
        (folder / "dog" / f"{number}.psd").write_bytes(b"x")
    with pytest.raises(DataError, match=r"class 'dog' has no images in .*pets/dog, only 3 \.psd; an image is \.avif"):
        load_image_data(folder)


def bytes_name(folder, name, number=0):
    """A file whose name is Latin-1, as old archives hold it."""
    return photo(folder / os.fsdecode(name), number)


def test_file_names_that_are_not_utf_8_are_read(tmp_path):
    folder = pets(tmp_path / "pets", images=3)
    for number in range(3):
        bytes_name(folder / "cat", b"caf\xe9 %d.png" % number, 8 * number)
    data = load_image_data(folder, validation_fraction=0.2, test_fraction=0)
    places, brightness = [], []
    for name, table in data.splits.items():
        images = LabelledImages(table, np.asarray, name=name)
        for row in range(len(images)):
            places.append(images.describe(row))
            brightness.append(int(images[row]["pixel_values"][0, 0, 0]))
    assert sum(r"caf\xe9" in place for place in places) == 3
    assert all(place.encode("utf-8") for place in places)
    assert len(brightness) == 9


def test_a_path_that_is_not_utf_8_comes_back_from_a_table(tmp_path):
    for name in (b"caf\xe9.png", "café 100%.png".encode(), b"a b#?.png"):
        file = bytes_name(tmp_path, name)
        stored = stored_path(file)
        assert stored.encode("utf-8")
        assert real_path(stored) == file
        assert decode_image({"bytes": None, "path": stored}).size == (64, 64)
    assert shown_path(tmp_path / os.fsdecode(b"caf\xe9.png")).endswith(r"caf\xe9.png")
    with pytest.raises(BadImageError, match=r"gone\\xe9\.png: no such file"):
        decode_image({"bytes": None, "path": stored_path(tmp_path / os.fsdecode(b"gone\xe9.png"))})


def test_a_class_folder_that_is_not_utf_8_is_refused_in_one_line(tmp_path):
    folder = pets(tmp_path / "pets")
    bytes_name(folder / os.fsdecode(b"\xe9l\xe9phant"), b"0.png")
    with pytest.raises(DataError, match=r"\\xe9l\\xe9phant is not UTF-8: rename it") as caught:
        load_image_data(folder)
    assert str(caught.value).encode("utf-8")


def test_boxes_of_images_whose_names_are_not_utf_8_are_read(yolo):
    folder = yolo()
    for kind, ending in (("images", ".png"), ("labels", ".txt")):
        file = folder / kind / "train" / f"3{ending}"
        file.rename(file.with_name(os.fsdecode(b"caf\xe9") + ending))
    data = load_box_data(folder, validation_fraction=0.2, test_fraction=0)
    rows = [row for table in data.splits.values() for row in table]
    (found,) = [row for row in rows if row["image_id"] == r"caf\xe9"]
    assert len(found["boxes"]) == 3
    assert decode_image(found["image"]).size == (60, 60)
    tables = read_box_images(folder).tables
    assert r"caf\xe9" in [name for table in tables.values() for name in table["image_id"]]
