"""Report of a dry run as text for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..runtime.progress import duration

_MOST_CLASSES = 20
_PART_NAMES = {
    "reading": "reading data and model",
    "preparing": "preparing",
    "steps": "steps",
    "evaluations": "an evaluation after each epoch",
    "last_evaluation": "the last evaluation",
}


def dry_run_text(report: Mapping[str, Any]) -> str:
    """Formats the report of a dry run.

    Args:
        report: Report as `dry_run` returns it.
    """
    rows = [(name, text) for name, text in _rows(report) if text]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = report["data"]
    yield (
        "model",
        f"{report['model']}, {report['parameters'] / 1e6:.1f} M parameters, preset {report['preset']}, input "
        f"{_input(report['input'])}",
    )
    sizes = ", ".join(f"{count} {split}" for split, count in data["sizes"].items())
    yield "data", f"{data['name']}: {sizes} images" if sizes else f"{data['name']}, a stream"
    yield "classes", _classes(data["classes"].get("train", {}), data["counted"])
    for split, found in data["image_sizes"].items():
        read = "" if found["images"] == found["of"] else f" ({found['images']} of {found['of']} read)"
        ends = f"{_size(found['smallest'])} to {_size(found['largest'])}, the middle one {_size(found['middle'])}"
        shown = f"all {_size(found['middle'])}" if found["smallest"] == found["largest"] else ends
        yield f"sizes, {split}", f"{shown} (height x width in pixels){read}"
    for note in data["notes"]:
        yield "note", note
    parts = f" in {report['accumulation']} parts" if report["accumulation"] > 1 else ""
    yield (
        "steps",
        f"{report['steps']} of {report['batch_size']} images{parts}: {report['epochs']} epochs of "
        f"{report['steps_per_epoch']} steps",
    )
    yield "measured", _measured(report)
    yield "estimate", _estimate(report)
    yield "fits", _fits(report["fits"])
    yield "picture", report["picture"] or ""
    yield "left", "nothing but the picture; the same command without the dry run begins the run"


def _input(facts: Mapping[str, Any]) -> str:
    if hw := facts.get("image_hw"):
        return f"{_size(hw)} pixels"
    sides = facts.get("image_sides", {})
    if fixed := sides.get("fixed"):
        return f"{_size(fixed)} pixels"
    return f"{sides['shortest']} pixels at the shorter side, {sides['longest']} at most" if sides else "not stated"


def _size(hw: Any) -> str:
    return f"{hw[0]} x {hw[1]}"


def _classes(counts: Mapping[str, int], counted: str) -> str:
    if not counts:
        return ""
    shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:_MOST_CLASSES])
    more = f" and {len(counts) - _MOST_CLASSES} more" if len(counts) > _MOST_CLASSES else ""
    return f"{len(counts)}, with training {counted}: {shown}{more}"


def _measured(report: Mapping[str, Any]) -> str:
    steps = report["measured_steps"]
    basis = f"median of {steps} after the first" if report["steps"] > 1 else "the only step"
    whose = "of the device" if report["device"] == "cuda" else "of this process, without loading processes"
    return (
        f"{report['seconds_per_step']:.3g} s a step ({basis}, which took {report['first_step_seconds']:.3g} s), "
        f"{report['images_per_second']:.3g} images/s, peak memory {report['peak_memory_mb']:.0f} MiB {whose}, "
        f"{report['precision']} on {report['hardware']}"
    )


def _estimate(report: Mapping[str, Any]) -> str:
    estimate = report["estimate"]
    parts = ", ".join(f"{_PART_NAMES[name]} {duration(seconds)}" for name, seconds in estimate["parts"].items())
    rests_on = estimate["rests_on"]
    images = sum(one["images"] for one in rests_on["evaluations"])
    most = "at most " if estimate["at_most"] else ""
    return (
        f"{most}{duration(estimate['seconds'])} for the whole run ({parts}), extrapolated from {rests_on['steps']} "
        f"steps and the evaluation of {images} images; without {estimate['without']}"
    )


def _fits(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["images"] is None:
        least = found["tried"][-1]["images"]
        return f"not even {least} images at once, by measured trials (limit {found['limit']})"
    of = f"{found['images']} of the {found['of']} images of a step"
    return f"{of} at once, by measured trials (limit {found['limit']})"


__all__ = ["dry_run_text"]
