"""Names of models trained from scratch, such as "deit-s" or "vit-b/32"."""

import re

from ...hub.known_models import KNOWN_MODELS

DETECTOR_FROM_SCRATCH = "detr"
CLASSIFIER_FROM_SCRATCH = re.compile(r"(?P<family>vit|deit)-(?P<size>ti|s|b|l|h)(?:/(?P<patch>\d+))?", re.IGNORECASE)
SIZES = {"ti": "Ti", "s": "S", "b": "B", "l": "L", "h": "H"}
_LONG_SIZES = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h"}


def is_from_scratch(source: str) -> bool:
    """Whether a source names a classifier to train from scratch, such as "deit-s" or "vit-b/32"."""
    return CLASSIFIER_FROM_SCRATCH.fullmatch(source) is not None


def misspelt_from_scratch(source: str) -> str | None:
    """Returns a hint for a source that resembles the name of a model from scratch but is none; otherwise None."""
    if source.lower() in KNOWN_MODELS:
        return None
    match = re.fullmatch(r"(vit|deit)[-_ ]?([a-z0-9.+]*)([-_][^/]*)?(/\d*)?", source, re.IGNORECASE)
    if match is None or is_from_scratch(source):
        return None
    family, size = match[1].lower(), match[2].lower()
    short = _LONG_SIZES.get(size, size if size in SIZES else None)
    meant = f"did you mean {family}-{short}? " if short else ""
    sizes = ", ".join(f"{family}-{name}" for name in SIZES)
    return f"{meant}from scratch there are {sizes}, each with /PATCH for another patch size"


__all__ = [
    "CLASSIFIER_FROM_SCRATCH",
    "DETECTOR_FROM_SCRATCH",
    "SIZES",
    "is_from_scratch",
    "misspelt_from_scratch",
]
