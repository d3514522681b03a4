"""Summary of a comparison: one table with the main measures as rows and the contestants as columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .detection.detector_verdict import differ
from .measurement import Measurement, Section, count_of
from .verdict import accuracies, beyond_chance, nearest, trained_apart

Apart = Callable[[Measurement, Measurement], bool]
LEGEND = "Bold: better than each of the others, beyond the intervals or by an exact count; up: higher is better."
# Quantities of the section "cost", with whether higher is better and whether they are exact counts.
_COSTS = {
    "latency": ("latency of one image", False, False),
    "throughput": ("throughput", True, False),
    "training step": ("training step", False, False),
    "peak memory": ("peak memory of one image", False, False),
    "macs": ("operations of one image", False, True),
    "weights": ("size of the weights", False, True),
    "parameters": ("parameters", False, True),
}
_FIGURES = {
    "map": "mAP",
    "map_50": "mAP50",
    "map_small": "mAP of small objects",
    "map_medium": "mAP of medium objects",
    "map_large": "mAP of large objects",
}


@dataclass(frozen=True)
class SummaryRow:
    """Row of the summary.

    Args:
        measure: Name of the measure, with its conditions.
        unit: Unit of the numbers; "1" for none.
        higher: Whether a higher number is better.
        cells: Measurement of each contestant by name; contestants without one are missing.
        best: Contestant that is better than each of the others; None if that is not told.
    """

    measure: str
    unit: str
    higher: bool
    cells: dict[str, Measurement]
    best: str | None


@dataclass(frozen=True)
class Summary:
    """Table of a summary.

    Args:
        contestants: Names of the contestants, in the order of the columns.
        rows: Rows with a number of at least one contestant.
    """

    contestants: list[str]
    rows: list[SummaryRow]


def summaries(sections: Sequence[Section], sides: Mapping[str, int]) -> list[Summary]:
    """Makes the table of the contestants, and that of the networks that were trained from scratch, as far as measured.

    Args:
        sections: Measured sections, of classifiers or of detectors.
        sides: Side of each contestant's input in pixels, by name; costs are those of the measured side next to it.
    """
    by_name = {section.name: section for section in sections}
    rows = _accuracy_rows(by_name) + _detector_rows(by_name) + _cost_rows(by_name, sides)
    tables = [Summary(list(sides), [row for row in rows if row.cells])]
    if "data" in by_name:
        trained = _data_rows(by_name["data"])
        tables.append(Summary(list(dict.fromkeys(name for row in trained for name in row.cells)), trained))
    return [table for table in tables if table.rows]


def _row(
    measure: str, found: Iterable[Measurement], *, higher: bool, exact: bool = False, apart: Apart = beyond_chance
) -> SummaryRow:
    cells = {one.contestant: one for one in found}
    unit = next((one.unit for one in cells.values()), "1")
    known = [one for one in cells.values() if one.value is not None]
    ranked = sorted(known, key=lambda one: one.value or 0.0, reverse=higher)
    if exact:
        clear = len(ranked) > 1 and ranked[0].value != ranked[1].value
    else:
        clear = len(ranked) > 1 and all(apart(ranked[0], other) for other in ranked[1:])
    return SummaryRow(measure, unit, higher, cells, ranked[0].contestant if clear else None)


def _accuracy_rows(sections: Mapping[str, Section]) -> list[SummaryRow]:
    rows = [_row("accuracy", accuracies(sections).values(), higher=True)]
    if "robustness" in sections:
        section = sections["robustness"]
        rows.append(_row("accuracy over all corruptions", section.find("mean corrupted accuracy"), higher=True))
        rows.append(_row("calibration error", section.find("calibration error", kind="clean"), higher=False))
    if "translation" in sections:
        found = sections["translation"].find("crop consistency", subset="matched accuracy")
        rows.append(_row("crop consistency at matched accuracy", found, higher=True))
    return rows


def _detector_rows(sections: Mapping[str, Section]) -> list[SummaryRow]:
    if "coco" not in sections:
        return []
    section = sections["coco"]

    def row(figure: str, name: str) -> SummaryRow:
        def apart(first: Measurement, second: Measurement) -> bool:
            return differ(section, figure, first.contestant, second.contestant)

        return _row(name, section.find("COCO", figure=figure), higher=True, apart=apart)

    return [row(figure, name) for figure, name in _FIGURES.items()]


def _cost_rows(sections: Mapping[str, Section], sides: Mapping[str, int]) -> list[SummaryRow]:
    if "cost" not in sections:
        return []
    rows = []
    for quantity, (name, higher, exact) in _COSTS.items():
        found = [one for one in sections["cost"].find(quantity) if one.contestant in sides]
        own = []
        for contestant, side in sides.items():
            mine = [one for one in found if one.contestant == contestant]
            if mine:
                own.append(nearest(mine, side) if "side" in mine[0].at else mine[0])
        measured_at = {one.at["side"] for one in own if "side" in one.at}
        where = ", each at its own size" if len(measured_at) > 1 else "".join(f" at {side} px" for side in measured_at)
        rows.append(_row(name + where, own, higher=higher, exact=exact))
    return rows


def _data_rows(section: Section) -> list[SummaryRow]:
    """Rows of the smallest and the largest part of the data, and of the time of a training."""
    fractions = sorted({one.at["fraction"] for one in section.find("accuracy")})
    rows = []
    for part in dict.fromkeys((*fractions[:1], *fractions[-1:])):
        images = section.find("cell accuracy", fraction=part)[0].at["train_images"]
        found = section.find("accuracy", fraction=part)
        name = f"accuracy from scratch on {count_of(images, 'image')}, {100 * part:g} % of all"
        rows.append(_row(name, found, higher=True, apart=lambda one, other: trained_apart(section, one, other)))
    rows.append(_row("time of one training", section.find("training time"), higher=False))
    rows.append(_row("parameters", section.find("parameters"), higher=False, exact=True))
    return [row for row in rows if row.cells]


__all__ = ["LEGEND", "Summary", "SummaryRow", "summaries"]
