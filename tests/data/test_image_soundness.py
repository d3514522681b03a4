"""The search for images that cannot be read before a training agrees with decoding where files are cut short."""

import io
import logging

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vithub.data.image_soundness import check_readable, unreadable_images
from vithub.data.images import BadImageError, decode_image

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")


def encoded(kind, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def table(contents, paths=None):
    rows = [{"bytes": content, "path": path} for content, path in zip(contents, paths or [None] * 99, strict=False)]
    return Dataset.from_dict({"image": rows}, features=Features({"image": ImageFeature(decode=False)}))


def decodes(content):
    try:
        decode_image(content)
    except BadImageError:
        return False
    return True


@given(kind=st.sampled_from(("JPEG", "PNG", "GIF", "WEBP")), share=st.floats(0, 1), more=st.binary(max_size=3))
def test_a_file_cut_anywhere_or_with_bytes_behind_it_is_judged_as_decoding_does(kind, share, more):
    content = encoded(kind)
    content = content[: round(share * len(content))] + more
    assert bool(list(unreadable_images(table([content]), "train"))) != decodes(content)


@pytest.mark.parametrize("kind", FORMATS)
def test_sound_files_pass_and_missing_ones_are_named(kind, tmp_path):
    file = tmp_path / "whole"
    file.write_bytes(encoded(kind))
    found = list(unreadable_images(table([None, None, b""], [str(file), str(tmp_path / "gone"), None]), "train"))
    assert [text.split(": ", 1)[1] for text in found] == [
        "no such file (row 1 of split 'train')", "the file is empty"
    ]  # fmt: skip
    assert found[0].startswith(str(tmp_path / "gone"))
    assert found[1].startswith("row 2 of split 'train'")


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "JPEG2000", "AVIF", "PPM"])
def test_of_other_formats_the_header_alone_is_looked_at_as_the_documents_say(kind):
    whole = encoded(kind)
    cut, stub = whole[: round(0.9 * len(whole))], whole[:8]
    assert not decodes(cut)
    assert list(unreadable_images(table([whole, cut]), "train")) == []
    assert len(list(unreadable_images(table([stub]), "train"))) == 1


def test_what_may_be_skipped_is_told_and_more_is_an_error(caplog):
    whole, cut = encoded("PNG"), encoded("PNG")[:-40]
    splits = {"train": table([whole] * 8 + [cut] * 2), "test": table([whole] * 4)}
    with pytest.raises(BadImageError, match=r"^2 images could .*row 8 of.*on_bad_image='skip'.*data\.max_bad_share"):
        check_readable(splits, "error", 0.5)
    with pytest.raises(BadImageError, match=r"more than data\.max_bad_share 0\.1 of a split: row 8 of split 'train'"):
        check_readable(splits, "skip", 0.1)
    with caplog.at_level(logging.WARNING, "vithub"):
        check_readable(splits, "skip", 0.2)
    (record,) = caplog.records
    assert "2 images could not be decoded, training goes on without: row 8 of split 'train'" in record.getMessage()
    check_readable({"test": splits["test"]}, "error", 0.0)
