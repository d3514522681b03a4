"""Pictures that are written blank, for tests that do not look at them: drawing is a third of a small training."""

import PIL.Image
from matplotlib.figure import Figure


def save_blank(figure, file, **options):
    """Stands in for `Figure.savefig`: the figure is made and its file is written, but nothing is laid out or drawn."""
    PIL.Image.new("RGB", (8, 8), "white").save(file, "png")


def leave_blank():
    """For a program in a process of its own."""
    Figure.savefig = save_blank
