"""What lies in the folder of a prediction to resume is kept only where it is what would be written."""

import json
import logging
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from vithub.data.image_processing import build_image_processor
from vithub.hub.folders import TargetError
from vithub.training.dataset_prediction import predict_dataset

import vithub

OPTIONS = {"rows_per_file": 4, "workers": 0, "batch_size": 4}


@pytest.fixture(scope="module")
def sound(tiny, randomised, tmp_path_factory):
    """A saved classifier, ten images, and what is predicted for them."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    randomised(vithub.HubViTForImageClassification(tiny(num_labels=3))).save_pretrained(root / "model")
    build_image_processor((32, 32)).save_pretrained(root / "model")
    draws = np.random.default_rng(0)
    (root / "data" / "one").mkdir(parents=True)
    for number in range(10):
        pixels = draws.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "data" / "one" / f"{number}.png")
    predict_dataset(root / "model", root / "data", root / "out", **OPTIONS)
    return root


@pytest.fixture
def place(sound, tmp_path):
    """A copy of it all, whose names and times are those of the original."""
    folder = tmp_path / "work"
    shutil.copytree(sound, folder)
    predict_dataset(folder / "model", folder / "data", folder / "fresh", **OPTIONS)
    shutil.rmtree(folder / "out")
    (folder / "fresh").rename(folder / "out")
    return folder


def rows(folder):
    return pq.read_table(sorted(folder.glob("part-*.parquet")))


def resume(place):
    return predict_dataset(place / "model", place / "data", place / "out", resume=True, **OPTIONS)


def times(folder):
    return {file.name: file.stat().st_mtime_ns for file in sorted(folder.glob("part-*.parquet"))}


def cut(out):
    file = out / "part-000001.parquet"
    file.write_bytes(file.read_bytes()[:-30])


def emptied(out):
    (out / "part-000001.parquet").write_bytes(b"")


def flipped(out):
    file = out / "part-000001.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 16
    file.write_bytes(content)


def foreign(out):
    table = pq.read_table(out / "part-000001.parquet").replace_schema_metadata(None)
    pq.write_table(table, out / "part-000001.parquet")


def another(out):
    shutil.copy(out / "part-000000.parquet", out / "part-000001.parquet")


def shortened(out):
    table = pq.read_table(out / "part-000001.parquet")
    pq.write_table(table.slice(0, 3), out / "part-000001.parquet")


@pytest.mark.parametrize("damage", [cut, emptied, flipped, foreign, another, shortened])
def test_a_part_that_is_damaged_or_foreign_is_made_again(damage, place, sound, caplog):
    before = times(place / "out")
    damage(place / "out")
    with caplog.at_level(logging.WARNING, "vithub"):
        resume(place)
    assert [record.getMessage().split(" is made again")[0] for record in caplog.records] == [
        str(place / "out" / "part-000001.parquet")
    ]
    kept = times(place / "out")
    assert [kept[name] == before[name] for name in before] == [True, False, True]
    assert rows(place / "out").drop_columns("image").equals(rows(sound / "out").drop_columns("image"))


def test_a_prediction_that_is_whole_is_left_as_it_is(place, caplog):
    before = times(place / "out")
    resume(place)
    assert times(place / "out") == before
    assert not caplog.records


def test_parts_of_two_models_are_not_mixed(place, caplog):
    (place / "out" / "part-000002.parquet").unlink()
    state = load_file(place / "model" / "model.safetensors")
    state["classifier.weight"] = -state["classifier.weight"]
    save_file(state, place / "model" / "model.safetensors", {"format": "pt"})
    with caplog.at_level(logging.WARNING, "vithub"):
        resume(place)
    assert sum("made from other weights" in record.getMessage() for record in caplog.records) == 2
    predict_dataset(place / "model", place / "data", place / "alone", **OPTIONS)
    assert rows(place / "out").equals(rows(place / "alone"))


def test_another_image_processor_and_another_image_are_noticed(place, caplog):
    file = place / "model" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    with caplog.at_level(logging.WARNING, "vithub"):
        resume(place)
    assert sum("made from other processor" in record.getMessage() for record in caplog.records) == 3
    caplog.clear()
    Image.new("RGB", (32, 32)).save(place / "data" / "one" / "5.png")
    with caplog.at_level(logging.WARNING, "vithub"):
        resume(place)
    (record,) = caplog.records
    assert "part-000001.parquet is made again: it was made from other data" in record.getMessage()
    predict_dataset(place / "model", place / "data", place / "alone", **OPTIONS)
    assert rows(place / "out").equals(rows(place / "alone"))


def test_a_part_too_many_and_a_damaged_description_are_refused(place):
    shutil.copy(place / "out" / "part-000000.parquet", place / "out" / "part-000003.parquet")
    with pytest.raises(TargetError, match=r"holds part-000003\.parquet, which this prediction does not make"):
        resume(place)
    (place / "out" / "part-000003.parquet").unlink()
    for text in ("{", "[]", ""):
        (place / "out" / "about.json").write_text(text)
        with pytest.raises(TargetError, match=r"about\.json"):
            resume(place)


@settings(max_examples=25)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_part_is_noticed_or_without_effect(position, bit, sound, tmp_path_factory):
    out = tmp_path_factory.mktemp("flipped") / "out"
    shutil.copytree(sound / "out", out)
    file = out / "part-000001.parquet"
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    file.write_bytes(content)
    predict_dataset(sound / "model", sound / "data", out, resume=True, **OPTIONS)
    assert rows(out).equals(rows(sound / "out"))
    shutil.rmtree(out)
