"""LZ4 frames, unpacked: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md (checksums are not compared)."""

import struct


def decompress(frame: bytes) -> bytes:
    """The content of one frame."""
    magic, flags = struct.unpack_from("<IB", frame)
    assert magic == 0x184D2204, "no LZ4 frame"
    at = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)  # content size, dictionary
    plain = bytearray()
    while True:
        (size,) = struct.unpack_from("<I", frame, at)
        at += 4
        if size == 0:
            return bytes(plain)
        raw, size = size & 0x80000000, size & 0x7FFFFFFF
        block = frame[at : at + size]
        at += size + (4 if flags & 0x10 else 0)  # block checksum
        if raw:
            plain += block
        else:
            _unpack_block(block, plain)


def _unpack_block(block: bytes, plain: bytearray) -> None:
    at = 0
    while at < len(block):
        token = block[at]
        count, at = _count(block, at + 1, token >> 4)
        plain += block[at : at + count]
        at += count
        if at >= len(block):
            return
        offset = block[at] | block[at + 1] << 8
        count, at = _count(block, at + 2, token & 15)
        count += 4
        start = len(plain) - offset
        if offset >= count:
            plain += plain[start : start + count]
        else:  # the match runs into itself
            pattern = bytes(plain[start:])
            plain += (pattern * (count // offset + 1))[:count]


def _count(block: bytes, at: int, count: int) -> tuple[int, int]:
    """A length of 15 goes on in the next bytes, to the first that is not 255."""
    if count == 15:
        while True:
            extra = block[at]
            at += 1
            count += extra
            if extra != 255:
                break
    return count, at


__all__ = ["decompress"]
