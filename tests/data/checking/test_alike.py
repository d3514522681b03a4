"""The fast searches for images that are alike find what comparing every pair finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from vithub.data.checking.duplicates import alike_by_embedding, alike_by_hash, repeated


def nearest(distances, split, most):
    """Distance to the nearest image of another split, else of the same, or None, by comparing every pair."""
    found = []
    for number, row in enumerate(distances):
        others = [(other, int(d)) for other, d in enumerate(row) if other != number and d <= most]
        across = [d for other, d in others if split[other] != split[number]]
        found.append((True, min(across)) if across else (False, min(d for _, d in others)) if others else None)
    return found


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 6))
def test_hashes(seed, count, most):
    draws = np.random.default_rng(seed)
    hashes = draws.integers(0, 2**64, max(count // 4, 1), dtype=np.uint64)[draws.integers(0, max(count // 4, 1), count)]
    for number in range(count):  # copies with some bits flipped, as many as not
        for bit in draws.integers(0, 64, int(draws.integers(0, 8))):
            hashes[number] ^= np.uint64(1 << int(bit))
    split = draws.integers(0, 3, count)
    found = alike_by_hash(hashes, split, most)
    distances = [[(int(a) ^ int(b)).bit_count() for b in hashes] for a in hashes]
    expected = nearest(distances, split, most)
    got = [
        (bool(x), int(d)) if p >= 0 else None
        for p, d, x in zip(found.partner, found.distance, found.across, strict=True)
    ]
    assert got == expected
    for number, partner in enumerate(found.partner):
        if partner >= 0:
            assert distances[number][partner] == found.distance[number]
            assert (split[number] != split[partner]) == found.across[number]


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_embeddings(seed, count):
    draws = np.random.default_rng(seed)
    vectors = draws.normal(size=(max(count // 3, 1), 8))[draws.integers(0, max(count // 3, 1), count)]
    vectors += draws.normal(size=vectors.shape) * draws.choice([0.0, 0.1, 1.0], (count, 1))
    split = draws.integers(0, 3, count)
    found = alike_by_embedding(vectors.astype(np.float32), split, 0.95)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    for number in range(count):
        near = [other for other in range(count) if other != number and cosines[number, other] >= 0.95]
        across = [other for other in near if split[other] != split[number]]
        if not near:
            assert found.partner[number] == -1
            continue
        best = max(cosines[number, other] for other in across or near)
        assert found.across[number] == bool(across)
        assert abs(1 - found.distance[number] - best) < 1e-5


@given(st.lists(st.integers(0, 6), max_size=30))
def test_repetitions(values):
    digests = np.array([[value, 7] for value in values], dtype=np.uint64).reshape(-1, 2)
    later, first = repeated(digests)
    expected = [(n, values.index(value)) for n, value in enumerate(values) if values.index(value) != n]
    assert list(zip(later.tolist(), first.tolist(), strict=True)) == expected
