import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vithub.data.pixels.cache import PixelCache, available_memory


def pixels(row, height, width):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(row)).byte()


@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12),
    budget=st.integers(0, 12_000), data=st.data(),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_what_is_stored_comes_back_and_what_finds_no_room_is_missing(sizes, budget, data):
    cache = PixelCache(len(sizes), budget)
    kept = {row for row in data.draw(st.permutations(range(len(sizes)))) if cache.put(row, pixels(row, *sizes[row]))}
    assert cache.stored == len(kept)
    for row, size in enumerate(sizes):
        found = cache.get(row)
        assert (found is not None) == (row in kept)
        assert found is None or torch.equal(found, pixels(row, *size))
    assert kept or min(3 * height * width for height, width in sizes) > budget - 64
    assert all(cache.put(row, torch.zeros(3, 1, 1, dtype=torch.uint8)) for row in kept)  # stays as it was first
    assert all(torch.equal(cache.get(row), pixels(row, *sizes[row])) for row in kept)


def store(cache, rows):
    for row in rows:
        cache.put(row, pixels(row, 9, 1 + row % 7))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_all_processes_fill_and_read_one_cache(method):
    context = multiprocessing.get_context(method)
    cache = PixelCache(60, 100_000)
    workers = [context.Process(target=store, args=(cache, range(60)[begin:])) for begin in (0, 20, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert cache.stored == 60
    assert all(torch.equal(cache.get(row), pixels(row, 9, 1 + row % 7)) for row in range(60))


KILLED = """
import os, torch
from vithub.data.pixels.cache import PixelCache
cache = PixelCache(2, 1_000_000)
cache.put(0, torch.zeros(3, 9, 9, dtype=torch.uint8))
lock = cache._alone()
lock.__enter__()
parent = os.getpid()
if os.fork() == 0:  # a process that dies while it stores an image, and one that goes on
    os.kill(parent, 9)
    while os.getppid() == parent:
        pass
    print(cache.put(1, torch.ones(3, 9, 9, dtype=torch.uint8)), int(cache.get(1).sum()), flush=True)
    os._exit(0)
os.waitpid(-1, 0)
"""


def test_a_killed_process_leaves_no_file_and_no_lock(tmp_path):
    before = set(Path("/dev/shm").iterdir())
    process = subprocess.run(
        [sys.executable, "-c", KILLED],
        stdout=subprocess.PIPE, text=True, check=False, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL
    assert process.stdout.split() == ["True", "243"]
    assert not list(tmp_path.iterdir())
    assert not [file for file in set(Path("/dev/shm").iterdir()) - before if "decoded" in file.name]


def test_the_memory_goes_with_the_cache():
    def mapped():
        return sum("decoded images" in line for line in Path("/proc/self/maps").read_text().splitlines())

    before = mapped()
    cache = PixelCache(4, 1_000_000)
    cache.put(0, pixels(0, 50, 50))
    assert mapped() == before + 1
    del cache
    assert mapped() == before


def test_the_memory_that_is_free_is_some_and_no_more_than_there_is():
    assert 2**20 < available_memory() < 2**50
