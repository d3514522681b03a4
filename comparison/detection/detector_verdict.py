"""Verdict of a comparison of detectors: sentences that rest on measurements only.

A difference of two detectors counts only if the interval of the difference, paired over images, excludes zero.
"""

from collections.abc import Iterable, Sequence

from ..measurement import Measurement, Section
from ..verdict import ACCURACY, CHOICE, COST, beyond_chance, listed, short, shown_value

ERRORS = "Errors"  # heading
LEAST_MAP = 1.0  # per cent below which a detector is not recommended
_SIZES = {"map_small": "small", "map_medium": "medium", "map_large": "large"}


def detector_verdict(sections: Sequence[Section]) -> list[str]:
    """Writes the sentences of `grouped_detector_verdict` one after the other."""
    return [line for lines in grouped_detector_verdict(sections).values() for line in lines]


def grouped_detector_verdict(sections: Sequence[Section]) -> dict[str, list[str]]:
    """Writes sentences on COCO's figures, sizes, errors, speed, and which detector to take, by heading.

    Args:
        sections: Measured sections.
    """
    by_name = {section.name: section for section in sections}
    text: dict[str, list[str]] = {}
    if "coco" in by_name:
        text[ACCURACY] = _figures(by_name["coco"])
    if "errors" in by_name:
        text[ERRORS] = _errors(by_name["errors"])
    if "cost" in by_name:
        text[COST] = _speed(by_name["cost"])
    if "cost" in by_name and "coco" in by_name:
        text[CHOICE] = _choice(by_name["coco"], by_name["cost"])
    return {heading: lines for heading, lines in text.items() if lines}


def _figures(section: Section) -> list[str]:
    text = []
    for figure, name in (("map", "mAP"), ("map_50", "mAP50")):
        found = section.find("COCO", figure=figure)
        text.append(f"{name}: {listed(found)}.")
    ranked = _ranked(section.find("COCO", figure="map"))
    if len(ranked) > 1:
        text.append(_difference(section, "map", "mAP", ranked[0], ranked[1]))
    for figure, size in _SIZES.items():
        known = _ranked(section.find("COCO", figure=figure))
        if len(known) > 1:
            text.append(_difference(section, figure, f"mAP of {size} objects", known[0], known[1]))
    return text


def _errors(section: Section) -> list[str]:
    text = []
    for one in section.find("score threshold"):
        name, kinds = one.contestant, {}
        for found in section.find("errors", one.contestant):
            if found.value is not None and found.at["kind"] != "correct":
                kinds[found.at["kind"]] = found.value
        if not kinds:
            continue
        most, second = sorted(kinds, key=lambda kind: -kinds[kind])[:2]
        text.append(
            f"Errors of {name} from score {short(one.value or 0.0)} on: most are {most} ({short(kinds[most])} per 100 "
            f"objects), then {second} ({short(kinds[second])}); of 100 objects {_missed(section, name)}."
        )
    return text


def _missed(section: Section, name: str) -> str:
    """Says how many objects are missed, by size."""
    rows = [one for one in section.find("errors by size", name, kind="missed") if one.value is not None]
    return ", ".join(f"{short(one.value or 0.0)} {one.at['size']} ones are missed" for one in rows)


def _speed(section: Section) -> list[str]:
    text = [
        f"Latency of one image: {listed(section.find('latency'))}.",
        f"Size of the weights: {listed(section.find('weights'))}.",
    ]
    text += [
        f"Speed against resolution: the time of {one.contestant} grows as pixels^{one.value:.2f} from {one.at['from']} "
        f"to {one.at['to']} px."
        for one in section.find("growth exponent")
        if one.value is not None
    ]
    return text


def _choice(coco: Section, cost: Section) -> list[str]:
    """Recommends a detector by latency, with the cost of a wrong choice."""
    quality = {one.contestant: one for one in _ranked(coco.find("COCO", figure="map"))}
    times = {one.contestant: one for one in cost.find("latency") if one.value and one.contestant in quality}
    if len(times) < 2:
        return []
    best = next(name for name in quality if name in times)
    if _value(quality[best]) < LEAST_MAP:
        return [f"None of them finds the objects: the highest mAP is {shown_value(quality[best])}. Train them first."]
    fastest = min(times, key=lambda name: times[name].value or 0.0)
    slow, quick = times[best].value or 1.0, times[fastest].value or 1.0
    if best == fastest:
        return [_one_choice(coco, quality, times, best)]
    gain = _value(quality[best]) - _value(quality[fastest])
    where = f"{short(quick)} ms an image against {short(slow)} ms"
    if not differ(coco, "map", best, fastest):
        return [
            f"Take {fastest} unless the {gain:.1f} points of mAP that {best} is ahead, which chance could have made, "
            f"are worth {slow / quick:.1f} times the time ({where}); more test images would settle it."
        ]
    return [
        f"With time to spare take {best}: to take {fastest} instead costs {gain:.1f} points of mAP, beyond chance. "
        f"Where an answer may not take {short(slow)} ms take {fastest} ({where}): to take {best} there costs "
        f"{slow / quick:.1f} times the time."
    ]


def _one_choice(coco: Section, quality: dict[str, Measurement], times: dict[str, Measurement], best: str) -> str:
    """Recommends the detector that is both the best and the fastest measured, against the slowest."""
    worst = max((name for name in times if name != best), key=lambda name: times[name].value or 0.0)
    ahead, faster = differ(coco, "map", best, worst), beyond_chance(times[best], times[worst])
    gain = f"{_value(quality[best]) - _value(quality[worst]):.1f} points of mAP"
    factor = f"{_value(times[worst]) / _value(times[best]):.1f} times the time of an image"
    if not ahead and not faster:
        return f"Nothing here speaks for {best} or {worst}: {gain} and {factor} are within what chance could make."
    return (
        f"Take {best}: it is the fastest and has the highest mAP measured. To take {worst} instead costs "
        f"{factor}{'' if faster else ' (within the intervals)'} and {gain}{'' if ahead else ' (within chance)'}."
    )


def _paired(section: Section, figure: str, first: str, second: str) -> tuple[Measurement | None, float]:
    """Returns the measured difference of two detectors, and 1 or -1 by the order in which it was measured."""
    for pair, sign in ((f"{first} against {second}", 1.0), (f"{second} against {first}", -1.0)):
        if found := section.find("COCO difference", pair, figure=figure):
            return found[0], sign
    return None, 1.0


def differ(section: Section, figure: str, first: str, second: str) -> bool:
    """Returns True if two detectors differ beyond chance: the interval of their difference excludes zero."""
    one, _ = _paired(section, figure, first, second)
    return one is not None and one.interval is not None and (one.interval[0] > 0 or one.interval[1] < 0)


def _difference(section: Section, figure: str, measure: str, first: Measurement, second: Measurement) -> str:
    gap = f"{_value(first) - _value(second):.1f} points of {measure}"
    one, sign = _paired(section, figure, first.contestant, second.contestant)
    if one is None or one.interval is None:
        return f"{first.contestant} and {second.contestant} differ by {gap}; too few images tell by how much of chance."
    low, high = sorted(sign * end for end in one.interval)
    interval = f"({low:.1f} to {high:.1f}, paired over images)"
    if differ(section, figure, first.contestant, second.contestant):
        return f"{first.contestant} is better than {second.contestant} by {gap} {interval}, beyond chance."
    return f"{first.contestant} and {second.contestant} are not told apart here: {gap} {interval}."


def _value(one: Measurement) -> float:
    return one.value or 0.0


def _ranked(found: Iterable[Measurement]) -> list[Measurement]:
    """Sorts measurements with a value, largest first."""
    return sorted((one for one in found if one.value is not None), key=_value, reverse=True)


__all__ = ["ERRORS", "LEAST_MAP", "detector_verdict", "differ", "grouped_detector_verdict"]
