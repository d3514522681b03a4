"""Xet's storage as a server sees it: xorbs of compressed chunks, and shards that say which chunks a file is made of.

Formats: https://huggingface.co/docs/xet (chunk headers of 8 bytes; shard records of 48 bytes).
"""

import hashlib
import re
import struct
import threading
from dataclasses import dataclass
from typing import Any

from .lz4_frames import decompress

_END = b"\xff" * 32
_VERIFIED, _HAS_SHA256 = 1 << 31, 1 << 30


@dataclass
class Xorb:
    """The data as uploaded, and where each chunk begins and how long it is when unpacked."""

    data: bytes
    offsets: list[int]  # of each chunk, and of the end
    lengths: list[int]

    @classmethod
    def parse(cls, data: bytes) -> "Xorb":
        offsets, lengths, at = [0], [], 0
        while at + 8 <= len(data) and data[at : at + 7] != b"XETBLOB" and data[at] == 0:
            at += 8 + int.from_bytes(data[at + 1 : at + 4], "little")
            lengths.append(int.from_bytes(data[offsets[-1] + 5 : offsets[-1] + 8], "little"))
            offsets.append(at)
        assert at <= len(data), "a chunk is longer than its xorb"
        return cls(data, offsets, lengths)

    def chunk(self, index: int) -> bytes:
        start, end = self.offsets[index], self.offsets[index + 1]
        packed, scheme = self.data[start + 8 : end], self.data[start + 4]
        plain = packed if scheme == 0 else decompress(packed)
        if scheme == 2:  # bytes grouped by their place in words of 4
            plain = _ungroup(plain)
        assert len(plain) == self.lengths[index], "a chunk unpacks to another length"
        return plain


@dataclass
class Term:
    xorb: str
    length: int
    start: int
    end: int


class XetStore:
    """Files by SHA-256 and by Xet's hash."""

    def __init__(self) -> None:
        self.xorbs: dict[str, Xorb] = {}
        self.files: dict[str, list[Term]] = {}  # by Xet's hash
        self.hashes: dict[str, str] = {}  # SHA-256 -> Xet's hash
        self.lock = threading.Lock()

    def add_xorb(self, name: str, data: bytes) -> bool:
        with self.lock:
            new = name not in self.xorbs
            self.xorbs[name] = Xorb.parse(data)
            return new

    def add_shard(self, data: bytes) -> None:
        """Registers the files of a shard, each of which must have the SHA-256 that the shard names."""
        at = 48  # after the header
        while data[at : at + 32] != _END:
            name, (flags, count) = _hex(data[at : at + 32]), struct.unpack_from("<II", data, at + 32)
            at += 48
            terms = []
            for _ in range(count):
                _, length, start, end = struct.unpack_from("<IIII", data, at + 32)
                terms.append(Term(_hex(data[at : at + 32]), length, start, end))
                at += 48
            at += 48 * count if flags & _VERIFIED else 0
            self.files[name] = terms
            if flags & _HAS_SHA256:
                sha256 = _hex(data[at : at + 32])
                at += 48
                self.hashes[sha256] = name
                assert hashlib.sha256(self.content(sha256)).hexdigest() == sha256, "the file has another SHA-256"

    def hash_of(self, sha256: str) -> str | None:
        return self.hashes.get(sha256)

    def size_of(self, sha256: str) -> int | None:
        name = self.hashes.get(sha256)
        return None if name is None else sum(term.length for term in self.files[name])

    def content(self, sha256: str) -> bytes:
        parts = []
        for term in self.files[self.hashes[sha256]]:
            parts += [self.xorbs[term.xorb].chunk(index) for index in range(term.start, term.end)]
        return b"".join(parts)

    def reconstruction(self, name: str, range_: str, url: str) -> dict[str, Any] | None:
        """How to make a file, or the part that a `Range` names; empty beyond its end, None where there is no file."""
        if name not in self.files:
            return None
        terms, size = self.files[name], sum(term.length for term in self.files[name])
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", range_)
        first, last = (int(match[1]), min(int(match[2] or size - 1), size - 1)) if match else (0, size - 1)
        if first >= size and size:
            return {}
        chosen, skipped, at = [], 0, 0
        for term in terms:
            if at + term.length > first and at <= last:
                skipped = first - at if not chosen else skipped
                chosen.append(term)
            at += term.length
        fetch: dict[str, list[dict[str, Any]]] = {}
        for term in chosen:
            xorb, span = self.xorbs[term.xorb], {"start": term.start, "end": term.end}
            bytes_ = {"start": xorb.offsets[term.start], "end": xorb.offsets[term.end] - 1}
            entry = {"range": span, "url": f"{url}/xorb-data/{term.xorb}", "url_range": bytes_}
            if entry not in fetch.setdefault(term.xorb, []):
                fetch[term.xorb].append(entry)
        listed = [
            {"hash": t.xorb, "unpacked_length": t.length, "range": {"start": t.start, "end": t.end}} for t in chosen
        ]
        return {"offset_into_first_range": max(skipped, 0), "terms": listed, "fetch_info": fetch}


def _hex(raw: bytes) -> str:
    """A hash as text: four words of 64 bits, each least significant byte first."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def _ungroup(data: bytes) -> bytes:
    plain, at = bytearray(len(data)), 0
    for place in range(4):
        count = len(range(place, len(data), 4))
        plain[place::4] = data[at : at + count]
        at += count
    return bytes(plain)


__all__ = ["Term", "XetStore", "Xorb"]
