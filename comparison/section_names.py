"""Names of the sections of a comparison, separate from the measuring code, which takes seconds to import."""

SECTIONS = ("cost", "translation", "locality", "robustness", "data")
DEFAULT_SECTIONS = SECTIONS[:-1]
DETECTION_SECTIONS = ("cost", "coco", "errors")
ALL_SECTIONS = (*SECTIONS, *DETECTION_SECTIONS[1:])

__all__ = ["ALL_SECTIONS", "DEFAULT_SECTIONS", "DETECTION_SECTIONS", "SECTIONS"]
