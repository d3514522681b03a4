"""Random generators seeded by the purpose of each draw, so that draws depend on nothing else.

A number that is drawn for (seed, epoch, sample) or (seed, step) is the same with any number of workers and processes
and after resuming.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


class Stream:
    """Purposes of random draws: the second number of a key, after the seed."""

    ORDER, SAMPLE, MIX, MODEL, WEIGHTS, REPLACEMENT, DROPOUT, NOISE, SCALE, MASK = range(10)


def derived_seed(*key: int) -> int:
    """Seed below 2^63 that is derived from all numbers of the key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def seed_torch(seed: int) -> None:
    """Seeds torch's generators on all devices.

    Differs from `torch.manual_seed` where there is no accelerator: that keeps the seed for devices that may be
    initialised later, for each with the text of the whole call stack, which takes most of a millisecond.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def derived_generator(*key: int) -> np.random.Generator:
    """NumPy generator that is seeded by a key."""
    return np.random.default_rng(np.random.SeedSequence(key))


def sample_generator(seed: int, stream: int, epoch: int, position: int) -> np.random.Generator:
    """NumPy generator of one sample's draws.

    It is Philox (https://doi.org/10.1145/2063384.2063405), which encrypts a counter: (seed, stream) is the key, and
    (epoch, position) the upper part of the counter, whose lower 64 bits count the draws. Two samples therefore never
    share a number's counter, and nothing is hashed or filled before the first draw.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, position, epoch, 0], dtype=np.uint64)))


def generator_from_torch() -> np.random.Generator:
    """NumPy generator that is seeded by a draw from torch's global generator, for single calls."""
    return sample_generator(int(torch.randint(2**63 - 1, ())), Stream.SAMPLE, 0, 0)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Context that seeds Python, NumPy and torch (CPU), and restores their states at its end.

    In a worker of a data loader, which draws for no other purpose, the states are not restored.
    """
    seed = derived_seed(*key)
    shared = get_worker_info() is None
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state()) if shared else None  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # timm draws from it
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if states is not None:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_rng_state(states[2])


__all__ = [
    "Stream",
    "derived_generator",
    "derived_seed",
    "generator_from_torch",
    "sample_generator",
    "seed_torch",
    "seeded",
]
