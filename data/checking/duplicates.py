"""Search for images that are the same or look alike, with memory and time that do not grow with their number squared.

Images are compared by 64-bit perceptual hashes that differ in few bits, or by the angle between embeddings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MOST_BITS = 4  # of 64, in which the hashes of two images that look alike differ
LEAST_COSINE = 0.97  # of the embeddings of two images that look alike
_BLOCK = 1024
_MOST_EDGES = 2_000_000


@dataclass
class Alike:
    """Nearest image that each image looks like.

    Args:
        partner: Number of the nearest image of another split, else of the same; -1 where there is none, (N,).
        distance: Its distance: bits that differ, or 1 minus the cosine, (N,).
        across: Whether the partner is of another split, (N,).
        complete: Whether all pairs were looked at; False where there are millions of them.
    """

    partner: np.ndarray
    distance: np.ndarray
    across: np.ndarray
    complete: bool = True

    @classmethod
    def none(cls, count: int) -> "Alike":
        """Result for `count` images of which none are alike."""
        return cls(np.full(count, -1, np.int64), np.full(count, np.inf, np.float32), np.zeros(count, bool))

    def add(self, first: np.ndarray, second: np.ndarray, distance: np.ndarray, split: np.ndarray) -> None:
        """Adds pairs of images.

        Args:
            first: Number of the one image of each pair, (P,).
            second: Number of the other image of each pair, (P,).
            distance: Distance of each pair, (P,).
            split: Number of the split of every image, (N,).
        """
        for one, other in ((first, second), (second, first)):
            across = split[one] != split[other]
            # best pair of each image last: of another split before the same, near before far
            order = np.lexsort((-other, -distance, across, one))
            a, b, d, x = one[order], other[order], distance[order], across[order]
            last = np.r_[a[1:] != a[:-1], np.ones(min(1, len(a)), bool)]
            a, b, d, x = a[last], b[last], d[last], x[last]
            better = (x & ~self.across[a]) | ((x == self.across[a]) & (d < self.distance[a]))
            a, b, d, x = a[better], b[better], d[better], x[better]
            self.partner[a], self.distance[a], self.across[a] = b, d, x


def alike_by_hash(hashes: np.ndarray, split: np.ndarray, most_bits: int = MOST_BITS) -> Alike:
    """Finds images whose perceptual hashes differ in few bits.

    Hashes that differ in at most k bits agree in one of k + 1 bands of their bits, so that only hashes with an equal
    band are compared.

    Args:
        hashes: Perceptual hash of each image, uint64 (N,).
        split: Number of the split of each image, (N,).
        most_bits: Largest number of bits that may differ.
    """
    found = Alike.none(len(hashes))
    values, inverse = np.unique(hashes, return_inverse=True)
    order = np.lexsort((split, inverse))  # images by hash, and by split within it
    starts = np.searchsorted(inverse[order], np.arange(len(values) + 1))
    edges = 0
    for group in np.flatnonzero(np.diff(starts) > 1):
        rows = order[starts[group] : starts[group + 1]]
        _connect(found, rows, rows, 0, split)
        edges += len(rows)
    for one, other, bits in _near_hashes(values, most_bits):
        for u, v, distance in zip(one, other, bits, strict=True):
            first, second = order[starts[u] : starts[u + 1]], order[starts[v] : starts[v + 1]]
            _connect(found, first, second, int(distance), split)
            edges += len(first) + len(second)
        if edges > _MOST_EDGES:
            found.complete = False
            break
    return found


def _connect(found: Alike, first: np.ndarray, second: np.ndarray, distance: int, split: np.ndarray) -> None:
    """Pairs every image of a group with the first image of each split in the other group, and the reverse."""
    for rows, others in ((first, second), (second, first)):
        representatives = others[np.unique(split[others], return_index=True)[1]]
        a, b = np.repeat(rows, len(representatives)), np.tile(representatives, len(rows))
        a, b = a[a != b], b[a != b]
        found.add(a, b, np.full(len(a), distance, np.float32), split)
        if first is second:
            break


def _near_hashes(values: np.ndarray, most_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of different hashes that differ in few bits, each once: their numbers, and how many bits differ."""
    edges = np.linspace(0, 64, most_bits + 2).round().astype(int)
    bands = [(values >> np.uint64(int(low))) & np.uint64((1 << int(high - low)) - 1) for low, high in pairwise(edges)]
    for number, band in enumerate(bands):
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(band[order]) != 0, True])
        for start, stop in pairwise(starts):
            members = order[start:stop]
            for first in range(0, len(members), _BLOCK):
                block = members[first : first + _BLOCK]
                for then in range(first, len(members), _BLOCK):
                    others = members[then : then + _BLOCK]
                    bits = _differing_bits(values[block][:, None] ^ values[others][None, :])
                    a, b = np.nonzero((bits <= most_bits) & (block[:, None] < others[None, :])
                                      if then == first else bits <= most_bits)  # fmt: skip
                    one, other = block[a], others[b]
                    # a pair that agrees in an earlier band was found there
                    new = np.ones(len(one), bool)
                    for earlier in bands[:number]:
                        new &= earlier[one] != earlier[other]
                    if new.any():
                        yield one[new], other[new], bits[a, b][new]


_BITS = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


def _differing_bits(values: np.ndarray) -> np.ndarray:
    """Number of bits that are set in each integer."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(values))
    return np.asarray(_BITS[np.ascontiguousarray(values).view(np.uint8)].reshape(*values.shape, 8).sum(-1))


def alike_by_embedding(embeddings: np.ndarray, split: np.ndarray, least_cosine: float = LEAST_COSINE) -> Alike:
    """Finds images whose embeddings point in nearly the same direction; every pair is compared, block by block.

    Args:
        embeddings: Embedding of each image, float (N, D).
        split: Number of the split of each image, (N,).
        least_cosine: Smallest cosine of the angle between two images that look alike.
    """
    found = Alike.none(len(embeddings))
    for first in range(0, len(embeddings), _BLOCK):
        block = _directions(embeddings[first : first + _BLOCK])
        for then in range(first, len(embeddings), _BLOCK):
            cosines = block @ _directions(embeddings[then : then + _BLOCK]).T
            if then == first:
                cosines[np.tril_indices(len(block))] = -1
            a, b = np.nonzero(cosines >= least_cosine)
            if len(a):
                found.add(a + first, b + then, 1 - cosines[a, b], split)
    return found


def _directions(embeddings: np.ndarray) -> np.ndarray:
    vectors = embeddings.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def repeated(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images with the same bytes as an earlier one.

    Args:
        digests: Two halves of the hash of each image's bytes, uint64 (N, 2).

    Returns:
        Number of each such image in ascending order, and of the first image with the same bytes, both (R,).
    """
    _, first, inverse = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    earliest = first[inverse.ravel()]
    later = np.flatnonzero(earliest != np.arange(len(digests)))
    return later, earliest[later]


__all__ = ["LEAST_COSINE", "MOST_BITS", "Alike", "alike_by_embedding", "alike_by_hash", "repeated"]
