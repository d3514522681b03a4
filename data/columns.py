"""Column names shared by all tables of images, which replace the names used by the source."""

IMAGE, LABEL = "image", "label"

__all__ = ["IMAGE", "LABEL"]
