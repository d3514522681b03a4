"""Progress of `vithub explain`, and the time that a method of many passes will take, measured on its first ones."""

import time

from vithub.training.runtime.progress import Reporter, duration

MEASURED = 3  # passes after which the time is stated; the first is not counted, since it may be slower


class ExplainProgress:
    """Progress over images and methods.

    Args:
        reporter: Receives the progress and the lines that stay.
        images: Number of images.
        methods: Number of methods per image.
    """

    def __init__(self, reporter: Reporter, images: int, methods: int) -> None:
        self.reporter, self.images, self.methods = reporter, images, methods
        self._done = 0
        self._first, self._stated, self._in_passes = 0.0, set[str](), False
        reporter.start("explaining", images * methods)

    def on_method(self) -> None:
        """Counts a method of an image as done."""
        self._done += 1
        if self._in_passes:
            self._in_passes = False
            self.reporter.start("explaining", self.images * self.methods, self._done)
        else:
            self.reporter.advance()

    def skip_image(self) -> None:
        """Counts all methods of an image as done."""
        self._done += self.methods
        self.reporter.advance(self.methods)

    def on_pass(self, method: str, done: int, total: int) -> None:
        """Counts a pass of a method; the first ones of each method tell how long it will take for all images."""
        now = time.monotonic()
        if done == 1:
            self._first, self._in_passes = now, True
            self.reporter.start(f"{method}, image {self._done // self.methods + 1} of {self.images}", total, done)
        else:
            self.reporter.advance()
        if done == MEASURED < total and method not in self._stated:
            self._stated.add(method)
            each = (now - self._first) / (MEASURED - 1)
            images = "" if self.images == 1 else f" for each of {self.images} images"
            seconds = duration(each * total * self.images)
            self.reporter.message(f"{method}: {total} passes{images}, about {seconds} ({each:.2g} s for one, measured)")


__all__ = ["MEASURED", "ExplainProgress"]
