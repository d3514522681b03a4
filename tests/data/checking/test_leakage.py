"""The search for shared files before training finds what comparing all bytes finds, and reads few files whole."""

import logging

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from smooth_photos import smooth_photo
from vithub.data.checking import leakage
from vithub.data.checking.leakage import LeakageError, check_leakage, find_leaks
from vithub.data.image_soundness import check_readable
from vithub.data.labelled.tables import load_image_data

# Bytes that differ at their beginnings only, or in length, or not at all.
CONTENT = [b"a" + bytes(5000), b"b" + bytes(5000), b"a" + bytes(5001), b"c", b"d"]
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=8)


@given(st.lists(rows, min_size=2, max_size=3))
def test_shared_files_are_those_with_equal_bytes(splits):
    tables = {
        name: [{"image": {"bytes": CONTENT[content], "path": None}, "label": label} for content, label in split]
        for name, split in zip(("train", "validation", "test"), splits, strict=False)
    }
    prints = {name: [hash(CONTENT[content][-4096:]) % 2**64 or 1 for content, _ in split]
              for name, split in zip(tables, splits, strict=True)}  # fmt: skip
    leaks = find_leaks(tables, prints)
    flat = [(name, row, *key) for name, split in zip(tables, splits, strict=True) for row, key in enumerate(split)]
    firsts = {}
    for name, row, content, label in flat:
        firsts.setdefault(content, (name, row, label))
    across = [(n, r, *firsts[c][:2]) for n, r, c, _ in flat if firsts[c][0] != n]
    labelled = [(n, r, *firsts[c][:2]) for n, r, c, label in flat if firsts[c][2] != label]
    assert sorted(leaks.across) == sorted(across)
    assert sorted(leaks.labelled_twice) == sorted(labelled)
    assert leaks.complete


def load(folder):
    images = load_image_data(folder)
    prints = {}
    check_readable(images.splits, "error", 0.0, prints)
    return images, prints


def test_a_shared_file_is_named_with_both_places_and_may_be_allowed(photos, caplog):
    root = photos()
    copy = root / "test" / "tulip" / "copy.jpg"
    copy.write_bytes((root / "train" / "rose" / "1.jpg").read_bytes())
    images, prints = load(root)
    with pytest.raises(LeakageError, match=r"^1 image is the same file as one of another split.*test/tulip/copy\.jpg "
                                           r"\(row 12 of test\) is .*train/rose/1\.jpg.*on_leakage"):  # fmt: skip
        check_leakage(images, prints, "error")
    with caplog.at_level(logging.WARNING, "vithub"):
        check_leakage(images, prints, "warn")
    assert "with another label" in caplog.text
    assert images.notes[-1] == "1 image is the same file as one of another split"


def test_a_repetition_within_a_split_is_no_leak_unless_the_draw_parts_it(photos):
    root = photos(splits=("train", "test"), count=12)
    (root / "test" / "rose" / "copy.jpg").write_bytes((root / "test" / "rose" / "1.jpg").read_bytes())
    check_leakage(*load(root), "error")
    for number in range(12):  # each image twice: no draw of a tenth keeps all pairs together
        (root / "train" / "rose" / f"copy{number}.jpg").write_bytes(
            (root / "train" / "rose" / f"{number}.jpg").read_bytes()
        )
    with pytest.raises(LeakageError, match=r"training images, of which validation were drawn, hold them twice"):
        check_leakage(*load(root), "error")


def test_files_are_read_whole_only_where_their_prints_agree_and_no_more_than_the_limit(photos, monkeypatch):
    root = photos()
    read = []
    digest = leakage._digest
    monkeypatch.setattr(leakage, "_digest", lambda tables, place: read.append(place) or digest(tables, place))
    images, prints = load(root)
    check_leakage(images, prints, "error")
    assert read == []
    for number in range(4):
        (root / "test" / "rose" / f"copy{number}.jpg").write_bytes(
            (root / "train" / "rose" / f"{number}.jpg").read_bytes()
        )
    monkeypatch.setattr(leakage, "MOST_READ", 5)
    images, prints = load(root)
    with pytest.raises(LeakageError, match=r"^at least 2 images are"):
        check_leakage(images, prints, "error")
    assert len(read) == 4


def test_images_in_a_table_have_prints_and_unreadable_ones_none():
    import io

    content = []
    for seed in (1, 2, 1):
        stream = io.BytesIO()
        smooth_photo(seed).save(stream, "PNG")
        content.append(stream.getvalue())
    content += [content[0][:200], content[0][:200]]
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=["a", "b"])})
    table = Dataset.from_list([{"image": {"bytes": c, "path": None}, "label": 0} for c in content], features=features)
    prints = {}
    check_readable({"train": table}, "skip", 0.5, prints)
    found = np.asarray(prints["train"])
    assert found[0] == found[2] != found[1]
    assert found[1] != 0
    assert list(found[3:]) == [0, 0]
