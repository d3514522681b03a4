import pytest
import torch
from datasets import Dataset, Image
from vithub.data.digits import digits_dataset
from vithub.training.recipe.recipe import Recipe, RecipeError

STREAM = {
    "data.streaming": True,
    "data.shuffle_buffer": 64,
    "data.held_out_images": 40,
    "training.max_steps": 11,
    "training.steps_per_epoch": 4,
    "augmentation.mixup": 0.8,
    # a stream is not split by fractions, and ends after steps
    "data.test_fraction": 0.1,
    "training.epochs": 30,
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in range(4):
        rows = digits_dataset().select(range(number * 60, number * 60 + 60))
        rows.to_parquet(folder / f"train-{number:05}-of-00004.parquet")
    return folder


@pytest.fixture(scope="module")
def streamed(train, shards, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "streamed", STREAM, data=shards)


def test_a_stream_trains_for_so_many_steps(streamed):
    assert len(streamed.losses) == 11
    assert [entry["step"] for entry in streamed.metrics["history"]] == [4, 8, 11]
    assert [entry["epoch"] for entry in streamed.metrics["history"]] == [1, 2, 3]
    assert streamed.metrics["data"]["sizes"] == {"validation": 40}
    assert "read as a stream" in (streamed.folder / "README.md").read_text()


def test_loading_processes_change_nothing(streamed, train, shards, tmp_path):
    again = train(tmp_path / "again", STREAM | {"data.workers": 2}, data=shards)
    assert again.losses == streamed.losses


@pytest.mark.parametrize("broken_at", [3, 7])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_in_the_middle_of_an_epoch_bit_for_bit(
    streamed, train, shards, listener, tmp_path, broken_at, workers
):
    values = STREAM | {"training.checkpoint_steps": 2, "data.workers": workers}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", values, data=shards, reporter=listener(broken_at))
    resumed = train(tmp_path / "run", values, data=shards, resume=True)
    assert resumed.losses == streamed.losses[broken_at - 1 :]
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, streamed.model.state_dict()[name]), name


def test_a_table_too_can_end_after_so_many_steps(train, tmp_path):
    for front_end in ("accelerate", "trainer"):
        run = train(tmp_path / front_end, {"training.max_steps": 10}, front_end=front_end)
        assert len(run.losses) == 10
        assert [entry["step"] for entry in run.metrics["history"]] == [7, 10]


def test_a_damaged_image_is_replaced_and_listed(train, shards, tmp_path):
    rows = list(digits_dataset().select(range(120)).cast_column("image", Image(decode=False)))
    rows[77]["image"]["bytes"] = rows[77]["image"]["bytes"][:30]

    stream = Dataset.from_list(rows, features=digits_dataset().features).to_iterable_dataset()
    values = STREAM | {"data.on_bad_image": "skip", "data.max_bad_share": 0.1, "training.max_steps": 4}
    run = train(tmp_path / "run", values, data=stream)
    assert run.metrics["bad_images"] == {"train": ["row 37 of the stream"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.streaming": True}, "training.max_steps must be given with data.streaming"),
        ({"data.streaming": True, "training.max_steps": 3, "augmentation.repeats": 3}, "augmentation.repeats 1"),
    ],
)
def test_what_a_stream_needs_is_said(values, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().with_values(values)


def test_the_trainer_front_end_refuses_a_stream(train, shards, tmp_path):
    with pytest.raises(RecipeError, match=r"data.streaming: needs front_end="):
        train(tmp_path / "run", STREAM, data=shards, front_end="trainer")
