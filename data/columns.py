"""Names of the columns that every table of images has here, whatever they were called where it came from."""

IMAGE, LABEL = "image", "label"

__all__ = ["IMAGE", "LABEL"]
