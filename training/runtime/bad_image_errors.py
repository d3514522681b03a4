"""Error messages that name the option for continuing without images that cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...data.argument_names import stated
from ...data.boxes.loading import MissingImagesError
from ...data.images import BadImageError


@contextmanager
def way_past_bad_images(
    on_bad_image: str,
    what_it_does: str,
    kinds: tuple[type[BadImageError | MissingImagesError], ...] = (BadImageError, MissingImagesError),
) -> Iterator[None]:
    """Adds `on_bad_image="skip"` and its effect to the message of an error.

    Args:
        on_bad_image: Value in force; if it is "skip", nothing is added.
        what_it_does: Effect of the option, appended to the message, such as "measures without it".
        kinds: Types of the errors to extend.
    """
    try:
        yield
    except kinds as error:
        if on_bad_image == "skip":
            raise
        raise type(error)(f"{error}; {stated(on_bad_image='skip')} {what_it_does}") from error


__all__ = ["way_past_bad_images"]
