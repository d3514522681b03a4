import io
import json
import tarfile

import pytest
from datasets import Dataset, IterableDataset
from hypothesis import given
from hypothesis import strategies as st
from vithub.data.digits import digits_dataset
from vithub.data.sources import DataError
from vithub.data.streaming.streams import ShuffledStream, StreamBatches, StreamOrder, StreamPlace
from vithub.data.streaming.tables import load_streamed_data


def numbers(count, shards=1):
    rows = Dataset.from_dict({"image": list(range(count)), "label": [0] * count})
    return rows.to_iterable_dataset(num_shards=shards)


def taken(stream, place, count):
    rows = stream.rows(place)
    return [next(rows) for _ in range(count)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_a_stream_goes_on_from_any_row_as_if_it_had_never_stopped(count, buffer, broken_at):
    whole = taken(ShuffledStream(numbers(count), 3, buffer), StreamPlace(), 120)
    place = whole[broken_at][0]
    place = StreamPlace(**json.loads(json.dumps(vars(place))))  # as a checkpoint keeps it
    again = taken(ShuffledStream(numbers(count), 3, buffer), place, 119 - broken_at)
    assert [row for _, _, row in again] == [row for _, _, row in whole[broken_at + 1 :]]


@given(st.integers(1, 40), st.integers(1, 12))
def test_each_pass_has_every_row_once_in_another_order(count, buffer):
    rows = [row["image"] for _, _, row in taken(ShuffledStream(numbers(count), 0, buffer), StreamPlace(), 2 * count)]
    assert sorted(rows[:count]) == sorted(rows[count:]) == list(range(count))
    for number, row in enumerate(rows[:count]):
        assert row // buffer == number // buffer  # shuffled within its block
    if min(count, buffer) > 8:
        assert rows[:count] != rows[count:]


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_processes_share_a_stream_without_overlap(shards):
    parts = [
        [row["image"] for _, _, row in taken(ShuffledStream(numbers(24, shards), 0, 5, p, 2), StreamPlace(), 12)]
        for p in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == list(range(24))


def test_an_empty_stream_is_an_error():
    with pytest.raises(DataError, match="no images for this process"):
        taken(ShuffledStream(numbers(4).filter(lambda row: False), 0, 4), StreamPlace(), 1)


def test_batches_know_their_place_however_far_ahead_they_were_read():
    order = StreamOrder(batch_size=4, steps_per_epoch=3)
    batches = StreamBatches(ShuffledStream(numbers(10), 0, 4), order, 0, 9, accumulation=2)
    whole = list(batches)
    assert len(whole) == len(batches) == 18
    assert [(key.epoch, key.position) for key in whole[6]] == [(1, 0), (1, 1)]
    place = batches.place_at(5)
    rest = list(StreamBatches(ShuffledStream(numbers(10), 0, 4), order, 5, 9, accumulation=2, place=place))
    assert rest == whole[10:]


def png(row):
    buffer = io.BytesIO()
    row["image"].save(buffer, "PNG")
    return buffer.getvalue()


def test_parquet_files_are_streamed_with_the_labels_of_their_type(tmp_path):
    for number in range(3):
        digits_dataset().select(range(number * 40, number * 40 + 40)).to_parquet(
            tmp_path / f"train-{number:05}-of-00003.parquet"
        )
    data = load_streamed_data(tmp_path, held_out_images=30)
    assert isinstance(data.train, IterableDataset)
    assert data.labels.names == tuple(map(str, range(10)))
    assert len(data.validation) == 30
    rest = list(data.train)
    assert len(rest) == 90
    truth = digits_dataset()["label"]
    assert [row["label"] for row in rest] == list(truth[30:120])
    assert rest[0]["image"]["bytes"][:4] == b"\x89PNG"
    assert data.test is None
    assert "first 30 training images were held out" in " ".join(data.notes)


def test_web_data_sets_are_streamed_when_their_labels_are_named(tmp_path):
    rows = digits_dataset().select(range(20))
    for split, part in (("train", range(12)), ("val", range(12, 20))):
        with tarfile.open(tmp_path / f"{split}-000.tar", "w") as shard:
            for number in part:
                for suffix, content in (("png", png(rows[number])), ("cls", str(rows[number]["label"]).encode())):
                    entry = tarfile.TarInfo(f"{number:04}.{suffix}")
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
    with pytest.raises(DataError, match=r"names of column 'cls' .* give data.labels"):
        load_streamed_data(tmp_path, label_column="cls")
    data = load_streamed_data(tmp_path, label_column="cls", labels=[str(digit) for digit in range(10)])
    assert [row["label"] for row in data.train] == rows["label"][:12]
    assert data.validation["label"][:] == rows["label"][12:]


def test_a_label_outside_the_set_is_named():
    rows = digits_dataset().select(range(20)).to_iterable_dataset()
    data = load_streamed_data(rows, held_out_images=1, labels=["zero", "one"])
    with pytest.raises(DataError, match="a row has the label 2; the labels are zero, one"):
        list(data.train)


def test_what_cannot_be_streamed_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no data set to stream"):
        load_streamed_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither Parquet files nor \.tar files"):
        load_streamed_data(tmp_path)
