"""Names of the sections of a comparison, separate from the measuring code, which takes seconds to import."""

SECTIONS = ("cost", "translation", "locality", "robustness", "data")
DEFAULT_SECTIONS = SECTIONS[:-1]

__all__ = ["DEFAULT_SECTIONS", "SECTIONS"]
