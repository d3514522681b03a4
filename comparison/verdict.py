"""Verdict of a comparison: sentences that name their measures and rest on measurements only.

A difference of two networks on the same images counts only if the two intervals do not overlap, which is stricter than
an interval of the paired difference; differences of trainings from scratch are paired by seed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from .measurement import Measurement, Section, count_of

# Headings of the sentences.
ACCURACY, COST, ROBUSTNESS, LOCALITY, DATA = "Accuracy", "Cost", "Robustness", "Locality", "Data"
CHOICE = "Which to take"


def verdict(sections: Sequence[Section], native_sides: dict[str, int]) -> list[str]:
    """Writes the sentences of `grouped_verdict` one after the other."""
    return [line for lines in grouped_verdict(sections, native_sides).values() for line in lines]


def grouped_verdict(sections: Sequence[Section], native_sides: dict[str, int]) -> dict[str, list[str]]:
    """Writes sentences on accuracy, cost, robustness, locality and data, with recommendations, by heading.

    Args:
        sections: Measured sections.
        native_sides: Side of each contestant's input in pixels, by name.
    """
    by_name = {section.name: section for section in sections}
    known = accuracies(by_name)
    parts: list[tuple[str, str, Callable[[Section], list[str]]]] = [
        (COST, "cost", _cost), (ROBUSTNESS, "translation", _translation), (ROBUSTNESS, "robustness", _robustness),
        (LOCALITY, "locality", _locality), (DATA, "data", _data),
    ]  # fmt: skip
    text: dict[str, list[str]] = {ACCURACY: _accuracy(known)}
    for heading, name, sentences in parts:
        if name in by_name:
            text.setdefault(heading, []).extend(sentences(by_name[name]))
    if "cost" in by_name and known:
        text[CHOICE] = _choice(known, by_name["cost"], native_sides)
    return {heading: lines for heading, lines in text.items() if lines}


def beyond_chance(first: Measurement, second: Measurement) -> bool:
    """Whether two numbers differ by more than their intervals; False if one has no interval."""
    if first.interval is None or second.interval is None:
        return False
    return first.interval[0] > second.interval[1] or second.interval[0] > first.interval[1]


def accuracies(sections: Mapping[str, Section]) -> dict[str, Measurement]:
    """Returns the accuracy of each contestant on unchanged images."""
    found = sections["translation"].find("accuracy") if "translation" in sections else []
    if not found and "robustness" in sections:
        found = sections["robustness"].find("accuracy", kind="clean")
    return {one.contestant: one for one in found}


def _accuracy(found: dict[str, Measurement]) -> list[str]:
    if not found:
        return []
    text = [f"Accuracy: {listed(found.values())}."]
    ranked = _ranked(found.values())
    if len(ranked) > 1:
        text.append(_difference("accuracy", "accurate", ranked[0], ranked[1]))
    return text


def _cost(section: Section) -> list[str]:
    text = []
    for one in section.find("growth exponent", of="macs"):
        timed = section.find("growth exponent", one.contestant, of="latency")
        measured = f", its measured time as pixels^{timed[0].value:.2f}" if timed and timed[0].value else ""
        text.append(
            f"Cost: the operations of {one.contestant} grow as pixels^{one.value:.2f} from {one.at['from']} to "
            f"{one.at['to']} px{measured}."
        )
    text += [
        f"Quadratic crossover: the quadratic part of {one.contestant} costs more operations than all else from "
        f"{one.value:.0f} px on."
        for one in section.find("quadratic crossover")
        if one.value is not None
    ]
    for one in section.find("latency crossing"):
        where = "" if one.value is None else f" than {one.value:.0f} px"
        text.append(f"Latency of one image, {one.contestant}: {one.note}{where}.")
    return text


def _translation(section: Section) -> list[str]:
    matched = {one.contestant: one for one in section.find("crop consistency", subset="matched accuracy")}
    known = [one for one in matched.values() if one.value is not None]
    if len(known) < 2:
        known = [one for one in section.find("crop consistency", subset="right by all") if one.value is not None]
    if len(known) < 2:
        return []
    basis = known[0].at["subset"]
    ranked = _ranked(known)
    how = "at matched accuracy" if basis == "matched accuracy" else "on images that all have right"
    return [
        f"Crop consistency (two crops of one image get the same answer), {how}: {listed(known)}.",
        _difference("crop consistency", "consistent", ranked[0], ranked[1]),
    ]


def _locality(section: Section) -> list[str]:
    text = []
    for name in dict.fromkeys(one.contestant for one in section.find("attention distance", weights="trained")):
        trained, random = (
            section.find("attention distance", name, weights=weights) for weights in ("trained", "random")
        )
        nearer = [
            one.at["layer"]
            for one, other in zip(trained, random, strict=True)
            if beyond_chance(one, other) and (one.value or 0) < (other.value or 0)
        ]
        text.append(
            f"Attention distance: {name} looks less far than the same network with random weights in "
            f"{len(nearer)} of {len(trained)} layers."
        )
    for one in section.find("receptive field radius", weights="trained"):
        if one.value is None:
            continue
        text.append(
            f"Receptive field: half of what the middle feature of {one.contestant} sees lies within {one.value:.0f} px."
        )
    return text


def _robustness(section: Section) -> list[str]:
    found = section.find("mean corrupted accuracy")
    if not found:
        return []
    text = [f"Mean accuracy over all corruptions: {listed(found)}."]
    ranked = _ranked(found)
    if len(ranked) > 1:
        text.append(
            _difference("mean accuracy over all corruptions", "accurate under corruption", ranked[0], ranked[1])
        )
    return text


def _data(section: Section) -> list[str]:
    text = []
    for one in section.find("data crossing"):
        first, second = one.contestant.split(" against ")
        if one.value is None:
            text.append(f"Accuracy from scratch, {first} and {second}: {one.note}.")
        else:
            text.append(
                f"Accuracy from scratch: {first} and {second} cross at {one.value:.0f} % of the data ({one.note})."
            )
    return text + _data_choice(section)


def _data_choice(section: Section) -> list[str]:
    """Recommends a network to train from scratch on the smallest and largest part, with the cost of other choices."""
    means = section.find("accuracy")
    parts = sorted({one.at["fraction"] for one in means})
    text = []
    for part in dict.fromkeys((*parts[:1], *parts[-1:])):
        best, *others = _ranked(section.find("accuracy", fraction=part))
        if not others:
            continue
        costs = [
            f"{one.contestant} costs {(best.value or 0.0) - (one.value or 0.0):.1f} points of accuracy"
            + ("" if trained_apart(section, best, one) else " (within chance)")
            for one in others
        ]
        images = section.find("cell accuracy", best.contestant, fraction=part)[0].at["train_images"]
        text.append(
            f"From scratch on {count_of(images, 'image')} ({100 * part:g} %) take {best.contestant}, accuracy "
            f"{shown_value(best)}: instead, {', '.join(costs)}."
        )
    if times := section.find("training time"):
        text.append(f"Time of one such training, on average: {listed(times)}.")
    return text


def listed(found: Iterable[Measurement]) -> str:
    """Lists each contestant with its number."""
    return ", ".join(f"{one.contestant} {shown_value(one)}" for one in found)


def trained_apart(section: Section, first: Measurement, second: Measurement) -> bool:
    """Returns True if two networks, trained on the same part of the data, differ beyond chance."""
    names = (f"{first.contestant} against {second.contestant}", f"{second.contestant} against {first.contestant}")
    found = [
        one.interval
        for one in section.find("accuracy difference", fraction=first.at["fraction"])
        if one.contestant in names and one.interval is not None
    ]
    return any(low > 0 or high < 0 for low, high in found)


def _choice(accuracies: dict[str, Measurement], cost: Section, sides: dict[str, int]) -> list[str]:
    """Recommends a contestant by latency, with the cost of a wrong choice."""
    times = {}
    for name in accuracies:
        rows = [one for one in cost.find("latency", name) if one.value is not None]
        if rows:
            times[name] = nearest(rows, sides[name])
    if len(times) < 2:
        return []
    fastest = min(times, key=lambda name: times[name].value or 0.0)
    best = max(times, key=lambda name: accuracies[name].value or 0.0)
    quick, good = times[fastest], times[best]
    clear = beyond_chance(accuracies[fastest], accuracies[best])
    if fastest == best:
        others = [name for name in times if name != best]
        worst = max(others, key=lambda name: times[name].value or 0.0)
        factor = (times[worst].value or 0.0) / (good.value or 1.0)
        loss = (accuracies[best].value or 0.0) - (accuracies[worst].value or 0.0)
        return [
            f"Take {best}: it is the fastest and has the highest accuracy measured. To take {worst} instead costs "
            f"{factor:.1f} times the time of an image and {loss:.1f} points of accuracy."
        ]
    factor = (good.value or 0.0) / (quick.value or 1.0)
    gain = (accuracies[best].value or 0.0) - (accuracies[fastest].value or 0.0)
    where = f"{quick.value:.1f} ms an image at {quick.at['pixels']} px against {good.value:.1f} ms"
    if not clear:
        return [
            f"Take {fastest} unless the {gain:.1f} points of accuracy that {best} is ahead, within the intervals here, "
            f"are worth {factor:.1f} times the time ({where}); more test images would settle it."
        ]
    return [
        f"With time to spare take {best}: to take {fastest} instead costs {gain:.1f} points of accuracy, beyond the "
        f"intervals. Where an answer may not take {good.value:.1f} ms take {fastest} ({where}): to take {best} there "
        f"costs {factor:.1f} times the time."
    ]


def nearest(rows: Sequence[Measurement], side: int) -> Measurement:
    """Returns the measurement at the side next to one in pixels."""
    return min(rows, key=lambda one: abs(one.at["side"] - side))


def _difference(measure: str, adjective: str, first: Measurement, second: Measurement) -> str:
    gap = f"{abs((first.value or 0.0) - (second.value or 0.0)):.1f} points of {measure}"
    if beyond_chance(first, second):
        return f"{first.contestant} is more {adjective} than {second.contestant} by {gap}, beyond the intervals."
    return f"{first.contestant} and {second.contestant} are not told apart here: {gap}, within the intervals."


def _ranked(found: Iterable[Measurement]) -> list[Measurement]:
    """Sorts measurements by value, largest first."""
    return sorted(found, key=lambda one: one.value or 0.0, reverse=True)


def shown_value(one: Measurement) -> str:
    """Formats a number with its interval and unit, such as "91.3 % (86.7 to 95.3)"."""
    if one.value is None:
        return f"not known ({one.note})" if one.note else "not known"
    unit = "" if one.unit == "1" else f" {one.unit}"
    interval = "" if one.interval is None else f" ({short(one.interval[0])} to {short(one.interval[1])})"
    return f"{short(one.value)}{unit}{interval}"


def short(value: float) -> str:
    """Formats a number with at most four digits and a metric prefix: 3.142, 42.1, 1.234 k, 4.6 G."""
    for limit, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            scale = 1e3 if limit == 1e4 else limit
            return f"{value / scale:.4g}{letter}"
    if value == int(value):
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


__all__ = [
    "ACCURACY",
    "CHOICE",
    "COST",
    "DATA",
    "LOCALITY",
    "ROBUSTNESS",
    "accuracies",
    "beyond_chance",
    "grouped_verdict",
    "listed",
    "nearest",
    "short",
    "shown_value",
    "trained_apart",
    "verdict",
]
