import multiprocessing
import os

import pytest
import torch
from patience import PATIENCE
from processes import Started
from torch.utils.data import Dataset
from vithub.data.labelled.augmentation import TrainTransform
from vithub.data.labelled.augmentation_settings import Augmentation
from vithub.data.labelled.dataset import collate
from vithub.data.pixels.finishing import Finish
from vithub.training.runtime.batch_loading import BatchLoader, KeptLoaders, closing_loaders
from vithub.training.tasks.evaluation import default_workers


class Squares(Dataset):
    """Images of one level each, as uint8, with the process that made them."""

    def __init__(self, name="squares"):
        self.name, self.finish = name, Finish([0.0] * 3, [1.0] * 3)

    def __getitem__(self, index):
        pixels = torch.full((3, 4, 4), index, dtype=torch.uint8)
        return {"pixel_values": pixels, "index": torch.tensor(index), "process": torch.tensor(os.getpid())}


BATCHES = [[0, 1], [2, 3], [4, 5]]


def test_loading_processes_outlast_evaluations_and_load_other_rows_then():
    kept, images = KeptLoaders(), Squares()
    processes = []
    for batches in (BATCHES, BATCHES[1:], BATCHES):
        loaded = list(kept.loader(images, batches, collate, 2, "cpu"))
        assert [batch["index"].tolist() for batch in loaded] == batches
        processes.append({int(number) for batch in loaded for number in batch["process"]})
    assert os.getpid() not in processes[0]
    assert processes[0] == processes[1] == processes[2]


def test_an_evaluation_that_was_broken_off_leaves_nothing_for_the_next():
    kept, images = KeptLoaders(), Squares()
    next(iter(kept.loader(images, BATCHES, collate, 2, "cpu")))
    again = kept.loader(images, BATCHES[::-1], collate, 2, "cpu")
    assert [batch["index"].tolist() for batch in again] == BATCHES[::-1]


def test_other_images_of_a_split_get_a_loader_of_their_own():
    kept = KeptLoaders()
    first = kept.loader(Squares(), BATCHES, collate, 0, "cpu")
    assert kept.loader(Squares(), BATCHES, collate, 0, "cpu") is not first


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_finished(workers):
    for batch in BatchLoader(Squares(), BATCHES, collate, workers):
        assert batch["pixel_values"].dtype == torch.float32
        assert torch.equal(batch["pixel_values"][:, 0, 0, 0] * 255, batch["index"].float())


def test_no_more_processes_are_started_than_there_are_batches():
    assert BatchLoader(Squares(), BATCHES[:1], collate, 99).num_workers == 1


def test_a_transform_of_one_image_is_its_two_halves():
    settings = Augmentation(color_jitter=0.4, random_erasing=1.0, vertical_flip=0.5)
    transform = TrainTransform(settings, (16, 16), [0.5] * 3, [0.2] * 3)
    image = torch.randint(0, 256, (3, 30, 40)).byte()
    torch.manual_seed(3)
    whole = transform(image)
    torch.manual_seed(3)
    assert torch.equal(whole, transform(image))
    assert whole.shape == (3, 16, 16)


def test_every_core_loads_and_a_launch_shares_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(48), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_workers() == 48
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert default_workers() == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert default_workers() == 0


KEPT_IN_A_CYCLE = """
import os, signal, sys, torch
from torch.utils.data import Dataset
from vithub.training.runtime.batch_loading import BatchLoader

class Numbers(Dataset):
    name = "numbers"

    def __getitem__(self, index):
        return torch.tensor(os.getpid())

loader = BatchLoader(Numbers(), [[0, 1], [2, 3]], torch.stack, 2)
loader.itself = loader  # never freed before the process ends
processes = {int(number) for batch in loader for number in batch}
for number in processes:
    os.kill(number, signal.SIGTERM) if sys.argv[1] == "asked" else None
print(*processes, flush=True)
"""


@pytest.mark.parametrize("asked", ["asked", "not"])
def test_a_process_that_ends_with_loaders_open_ends_and_leaves_no_process(asked, tmp_path):
    with (tmp_path / "out").open("w") as out:
        assert Started(KEPT_IN_A_CYCLE, [asked], stdout=out, stderr=out).wait(PATIENCE) == 0
    numbers = [int(number) for number in (tmp_path / "out").read_text().split()]
    assert len(numbers) == 2
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_loaders_are_closed_where_a_run_ends_or_fails_and_others_stay():
    others = BatchLoader(Squares(), BATCHES, collate, 1)
    list(others)
    loader = BatchLoader(Squares(), BATCHES, collate, 2)

    @closing_loaders()
    def fail():
        list(loader)
        assert len(multiprocessing.active_children()) == 3
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(multiprocessing.active_children()) == 1
    assert [batch["index"].tolist() for batch in loader] == BATCHES  # with processes of its own again
    loader.close()
    others.close()
    assert not multiprocessing.active_children()
