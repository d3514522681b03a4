"""Loading of single images by processes of their own, ahead of the model that predicts them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from ..data.argument_names import stated
from ..data.images import BadImageError
from .runtime.batch_loading import BatchLoader
from .runtime.loading_processes import named_deaths
from .tasks.evaluation import useful_workers

AT_ONCE = 8  # images that a loading process hands over together
IMAGES_PER_WORKER = 16  # fewer are loaded faster than another process starts

Content = Image.Image | torch.Tensor | BadImageError
Packed = tuple[list[Content | None], torch.Tensor | None]


class _Images(Dataset[Content]):
    """Images by name, decoded and prepared; an image that cannot be decoded is the error."""

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[str], Image.Image],
        prepare: Callable[[Image.Image], torch.Tensor] | None,
    ) -> None:
        self.names, self.read, self.prepare = names, read, prepare

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Content:
        try:
            image = self.read(self.names[row])
        except BadImageError as error:
            return BadImageError(str(error))  # without its traceback, which does not travel
        return image if self.prepare is None else self.prepare(image)


def loaded_ahead(
    names: Sequence[str],
    read: Callable[[str], Image.Image],
    prepare: Callable[[Image.Image], torch.Tensor] | None,
    workers: int,
) -> Iterator[tuple[str, Any]]:
    """Yields each name with its image, in order, loaded by several processes.

    Args:
        names: Files or URLs.
        read: Function from a name to the image.
        prepare: Function from an image to its pixels (1, C, height, width), called in the loading processes too; None
            yields images.
        workers: Largest number of loading processes.

    Yields:
        Name, and the image, its pixels, or the `BadImageError` in its place.

    Raises:
        LoadingProcessError: A loading process died.
    """
    batches = [list(range(first, min(first + AT_ONCE, len(names)))) for first in range(0, len(names), AT_ONCE)]
    images = _Images(names, read, prepare)
    loader = BatchLoader(images, batches, _packed, useful_workers(workers, len(names), IMAGES_PER_WORKER))
    try:
        with named_deaths(lambda: f"; {stated(workers=0)} loads in this process"):
            for rows, packed in zip(batches, loader, strict=True):
                yield from zip((names[row] for row in rows), _unpacked(packed), strict=True)
    finally:
        loader.close()


def _packed(contents: list[Content]) -> Packed:
    """Stacks pixels of one shape: each tensor that travels between processes takes a file descriptor."""
    pixels = [content for content in contents if isinstance(content, torch.Tensor)]
    if not pixels or any(one.shape != pixels[0].shape for one in pixels):
        return list(contents), None
    return [None if isinstance(content, torch.Tensor) else content for content in contents], torch.stack(pixels)


def _unpacked(packed: Packed) -> Iterator[Content]:
    contents, stacked = packed
    pixels = iter(()) if stacked is None else iter(stacked)
    for content in contents:
        yield next(pixels) if content is None else content


__all__ = ["loaded_ahead"]
