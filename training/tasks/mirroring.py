"""Refusal of mirror images by the tasks that do not average over them; see `Task.open_mirrored`."""

from typing import NoReturn

from ...data.argument_names import stated


def refuse_mirrored(task: str) -> NoReturn:
    """Raises a `ValueError`: a model for this task does not answer from an image and its mirror image."""
    raise ValueError(
        f"{stated(mirrored=True)} has no effect on a model for {task}: only classifiers average over mirror images"
    )


__all__ = ["refuse_mirrored"]
