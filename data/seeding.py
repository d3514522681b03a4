"""Random choices that depend on what they are for, and on nothing else.

A number that is drawn for (seed, epoch, sample) or (seed, step) is the same with any number of workers and processes
and after any resumption.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


class Stream:
    """What a key is for; its second number, after the seed."""

    ORDER, SAMPLE, MIX, MODEL, WEIGHTS, REPLACEMENT, DROPOUT, NOISE = range(8)


def derived_seed(*key: int) -> int:
    """A seed below 2^63 that any change of the key changes."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def derived_generator(*key: int) -> np.random.Generator:
    """NumPy's generator for a key."""
    return np.random.default_rng(np.random.SeedSequence(key))


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seeds Python, NumPy and torch (CPU) for a block, and puts back the states they had.

    In a loading process, which draws for nothing else, the states are left as they are.
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


__all__ = ["Stream", "derived_generator", "derived_seed", "seeded"]
