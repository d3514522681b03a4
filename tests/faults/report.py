"""Counts before and after as the table of docs/robustness.md."""

from collections.abc import Iterator
from typing import Any

from .case import KINDS

HEAD = ("area", "cases", *KINDS)


def markdown(before: dict[str, Any], after: dict[str, Any]) -> str:
    """A table with a row for each area and for all faults, all inputs and both, each count as "before -> after"."""
    lines = [f"| {' | '.join(HEAD)} |", f"|---|{'---:|' * (len(HEAD) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(before, after)]
    return "\n".join(lines) + "\n"


def _rows(before: dict[str, Any], after: dict[str, Any]) -> Iterator[list[str]]:
    for area in after["by_area"]:
        yield _row(area, before["by_area"].get(area, {}), after["by_area"][area])
    for sort in sorted(after["by_sort"]):
        yield _row(f"**all {sort}**", before["by_sort"].get(sort, {}), after["by_sort"][sort])
    yield _row("**all**", *(_total(counts["by_sort"].values()) for counts in (before, after)))


def _total(rows: Any) -> dict[str, int]:
    return {kind: sum(row.get(kind, 0) for row in rows) for kind in KINDS}


def _row(name: str, before: dict[str, int], after: dict[str, int]) -> list[str]:
    pairs = [
        (sum(before.values()), sum(after.values())),
        *((before.get(kind, 0), after.get(kind, 0)) for kind in KINDS),
    ]
    return [name, *(f"{a:,}" if a == b else f"{a:,} -> {b:,}" for a, b in pairs)]


__all__ = ["markdown"]
