"""Damage drawn with a seed: of any bytes, and of the values of plain data such as JSON holds."""

import copy
import random
from collections.abc import Callable
from typing import Any

Change = Callable[[random.Random, bytes], bytes]
ValueChange = Callable[[random.Random, Any], Any]
# Placed into the text of a document in the end, as no library writes them: numbers that overflow, and nested lists.
DEEP = "deep nesting goes here"
DEPTH = 100_000
LARGEST = 10**6  # a number that may be meant


def _flip(draws: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draws.choice((1, 1, 2, 5))):
        changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
    return bytes(changed)


def _cut(draws: random.Random, content: bytes) -> bytes:
    return content[: draws.randrange(len(content))]


def _without_part(draws: random.Random, content: bytes) -> bytes:
    begin = draws.randrange(len(content))
    return content[:begin] + content[begin + draws.randrange(1, 40) :]


def _part_twice(draws: random.Random, content: bytes) -> bytes:
    begin = draws.randrange(len(content))
    end = begin + draws.randrange(1, 40)
    return content[:end] + content[begin:]


def _inserted(draws: random.Random, content: bytes) -> bytes:
    begin = draws.randrange(len(content) + 1)
    return content[:begin] + draws.randbytes(draws.randrange(1, 20)) + content[begin:]


def _zeros(draws: random.Random, content: bytes) -> bytes:
    begin = draws.randrange(len(content))
    part = content[begin : begin + draws.randrange(1, 40)]
    return content[:begin] + bytes(len(part)) + content[begin + len(part) :]


BYTES: dict[str, Change] = {
    "flipped bits": _flip,
    "cut": _cut,
    "a part missing": _without_part,
    "a part twice": _part_twice,
    "random bytes inserted": _inserted,
    "a part zeros": _zeros,
}


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in plain data, inner and outer, but the whole."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    found = []
    for key, value in inner:
        found += [(*path, key), *places(value, (*path, key))]
    return found


def _with(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def _at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def _drawn_numbers(draws: random.Random, content: Any) -> tuple[Any, ...]:
    numbers = [path for path in places(content) if isinstance(_at(content, path), int | float)]
    return draws.choice(numbers or places(content))


def _another_type(draws: random.Random, content: Any) -> Any:
    path = draws.choice(places(content))
    value = _at(content, path)
    others = [None, True, "", "x", "-1", [], {}, [1, 2, 3], ["a"], {"a": 1}, [value], {"a": value}, str(value), 0.5]
    return _with(content, path, draws.choice([other for other in others if type(other) is not type(value)]))


def _huge(draws: random.Random, content: Any) -> Any:
    value = draws.choice((10**9, 10**12, 10**18, 2**63, 2**64, -(2**63), 1e300, -1e300, 50_000))
    return _with(content, _drawn_numbers(draws, content), value)


def _not_a_number(draws: random.Random, content: Any) -> Any:
    value = draws.choice((float("nan"), float("inf"), -float("inf")))
    return _with(content, _drawn_numbers(draws, content), value)


def _negative(draws: random.Random, content: Any) -> Any:
    return _with(content, _drawn_numbers(draws, content), draws.choice((-1, 0, -1.5, -(10**9))))


def _deep(draws: random.Random, content: Any) -> Any:
    return _with(content, draws.choice(places(content)), DEEP)


def _missing(draws: random.Random, content: Any) -> Any:
    path = draws.choice(places(content))
    changed = copy.deepcopy(content)
    del _at(changed, path[:-1])[path[-1]]
    return changed


def _swapped(draws: random.Random, content: Any) -> Any:
    found = places(content)
    one = draws.choice(found)
    apart = [path for path in found if path[: len(one)] != one and one[: len(path)] != path]
    if not apart:
        return _another_type(draws, content)
    two = draws.choice(apart)
    return _with(_with(content, one, _at(content, two)), two, _at(content, one))


VALUES: dict[str, ValueChange] = {
    "another type": _another_type,
    "a huge number": _huge,
    "not a number": _not_a_number,
    "a negative number": _negative,
    "deep nesting": _deep,
    "a value missing": _missing,
    "two values swapped": _swapped,
}


def deepened(text: str) -> str:
    """Puts nested lists where `VALUES` left their mark, as text: no library writes them."""
    return text.replace(f'"{DEEP}"', "[" * DEPTH + "]" * DEPTH).replace(DEEP, "[" * DEPTH + "]" * DEPTH)


def fits(before: Any, after: Any, *, missing: bool = False, least: float = 0) -> bool:
    """Returns True if damaged data has the types of the undamaged, so that no reader can tell that it was changed.

    Args:
        before: Undamaged plain data, without negative numbers.
        after: Damaged data.
        missing: Whether a key may be missing or have another name, as one that has a default may.
        least: Smallest number that may be meant.
    """
    if isinstance(before, bool) or isinstance(after, bool) or before is None or after is None:
        return type(before) is type(after)
    if isinstance(before, dict):
        if not isinstance(after, dict) or not (missing or before.keys() == after.keys()):
            return False
        return all(fits(before[key], after[key], missing=missing, least=least) for key in before.keys() & after.keys())
    if isinstance(before, list):
        if not isinstance(after, list) or not before:
            return isinstance(after, list)
        return all(
            fits(before[min(n, len(before) - 1)], item, missing=missing, least=least) for n, item in enumerate(after)
        )
    if isinstance(before, int | float):
        whole = isinstance(before, float) or isinstance(after, int) or (isinstance(after, float) and after.is_integer())
        return whole and isinstance(after, int | float) and least <= after <= LARGEST
    return type(before) is type(after)


__all__ = ["BYTES", "VALUES", "Change", "ValueChange", "deepened", "fits", "places"]
