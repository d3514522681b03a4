"""Explanations that use only the model's input and output, and the random map as the baseline of all methods.

Shapes: B images, C channels, h x w cells.
"""

import math
import zlib
from itertools import pairwise

import torch

from ...data.argument_names import argument
from ..capture.subject import ExplanationError, Subject
from .request import Found, Request
from .score_gradients import score_gradients
from .targets import Choice

_CELLS = 14  # cells along the shorter side of a model without patches
_MAX_WINDOWS = 256  # limits the occluded images per image


def integrated_gradients(subject: Subject, request: Request) -> Found:
    """Integrated gradients (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365), summed over channels.

    The path leads from zero, the mean colour of normalised pixels, to the image. A value on the grid is the mean over a
    cell.
    """
    attributions, logits = pixel_attributions(subject, request)
    maps = attributions.sum(dim=1)
    grid = torch.nn.functional.adaptive_avg_pool2d(maps[:, None], cells(subject))[:, 0]
    return Found(grid, logits, maps)


def pixel_attributions(subject: Subject, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
    """Attributions (B, C, height, width) by integrated gradients, and the logits.

    The attributions of an image sum approximately to its score minus the score of the zero image.
    """
    if request.steps < 1:
        raise ExplanationError(f"{argument('steps')} must be at least 1, got {request.steps}")
    with torch.no_grad():
        logits = subject.logits(subject.forward())
    choice = request.choice(subject, logits)
    total = torch.zeros_like(subject.pixel_values, dtype=torch.float32)
    for step in range(request.steps):
        pixels = (subject.pixel_values * ((step + 0.5) / request.steps)).requires_grad_()  # midpoint rule
        with torch.enable_grad():
            score = choice.scores(subject.logits(subject.forward(pixels))).sum()  # type: ignore[arg-type]
        total += score_gradients(score, [pixels])[0]
        if request.on_pass is not None:
            total.flatten()[0].item()  # waits for the device, so that the pass is done when it is reported
            request.on_pass(step + 1, request.steps)
    assert logits is not None
    return total * subject.pixel_values.float() / request.steps, logits


def occlusion(subject: Subject, request: Request) -> Found:
    """Occlusion (Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901): the drop of the score without each cell.

    A cell is set to zero, the mean colour. Cells are patches; if there are more than 256, squares of them are occluded
    together.
    """
    height, width = subject.image_hw
    rows, columns = cells(subject)
    side = math.ceil(math.sqrt(rows * columns / _MAX_WINDOWS))
    tops, lefts = (_edges(count, side, pixels) for count, pixels in ((rows, height), (columns, width)))
    windows = [(*y, *x) for y in pairwise(tops) for x in pairwise(lefts)]  # top, bottom, left, right
    with torch.no_grad():
        logits = subject.logits(subject.forward())
        choice = request.choice(subject, logits)
        assert logits is not None
        whole = choice.scores(logits).float()
        falls = torch.empty(subject.batch, len(windows))
        starts = range(0, len(windows), request.batch_size)
        for image in range(subject.batch):
            for number, start in enumerate(starts, 1):
                chunk = windows[start : start + request.batch_size]
                falls[image, start : start + len(chunk)] = whole[image].cpu() - _without(subject, choice, image, chunk)
                if request.on_pass is not None:
                    request.on_pass(image * len(starts) + number, subject.batch * len(starts))
    coarse = falls.view(subject.batch, len(tops) - 1, len(lefts) - 1)
    grid = coarse.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, :rows, :columns]
    return Found(grid, logits)


def _without(subject: Subject, choice: Choice, image: int, windows: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """Scores of one image with each of the windows (top, bottom, left, right) set to zero."""
    images = torch.full((len(windows),), image, device=subject.pixel_values.device)
    pixels = subject.pixel_values[images]
    for number, (top, bottom, left, right) in enumerate(windows):
        pixels[number, :, top:bottom, left:right] = 0
    logits = subject.logits(subject.forward(pixels, images))
    assert logits is not None
    return choice.of(images).scores(logits).float().cpu()


def _edges(count: int, side: int, pixels: int) -> list[int]:
    """Pixel positions of the edges of windows of `side` cells, for `count` cells over `pixels` pixels."""
    return [round(min(cell, count) * pixels / count) for cell in range(0, count + side, side)]


def cells(subject: Subject) -> tuple[int, int]:
    """(rows, columns) of the cells: the patches of a ViT, otherwise squares of about 1/14 of the shorter side."""
    if subject.architecture.kind == "vit":
        return subject.grid
    height, width = subject.image_hw
    cell = max(1.0, min(height, width) / _CELLS)
    return round(height / cell), round(width / cell)


def random_map(subject: Subject, request: Request) -> Found:
    """Uniform noise that depends only on the seed and the image, not on the image's position in a batch."""
    with torch.no_grad():
        logits = subject.logits(subject.forward())
    maps = []
    for image in subject.pixel_values.float().cpu():
        generator = torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes()) ^ request.seed)
        maps.append(torch.rand(cells(subject), generator=generator))
    return Found(torch.stack(maps), logits)


__all__ = ["cells", "integrated_gradients", "occlusion", "pixel_attributions", "random_map"]
