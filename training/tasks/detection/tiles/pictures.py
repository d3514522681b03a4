"""Pictures of a data set looked at in tiles: loading, forward passes and merging."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from .....data.boxes.dataset import BoxEvaluationTransform, BoxImages, collate_boxes
from .....data.boxes.tables import ImageBoxes
from .....data.pixels.decoding import as_pixels
from ...evaluation import Part
from ...tiling import Tiling
from ..detections import MOST, Detections
from ..evaluation import MOST_AT_ONCE, Answers, BoxEvaluator, batches_of_one_shape
from ..losses import SplitLoss
from ..metrics import DetectionMetrics
from .merging import View, merge_views, view_of

PICTURE = "picture"


class TiledImages(BoxImages):
    """Images of a split; one that is larger than a tile has its whole `picture` (3, height, width), uint8, too.

    Tiles are cut from it when they are needed, so that memory grows with the picture and not with its tiles. The other
    entries of a sample are those of `BoxImages`, to the bit.

    Args:
        table: Table with the columns of `BOX_TABLE`, or "image" and "image_id" only.
        transform: Evaluation transform.
        tiling: Way to cut pictures.
        name: Name of the split in messages.
        skip_bad: Whether images that cannot be decoded are skipped.
    """

    transform: BoxEvaluationTransform

    def __init__(
        self, table: Any, transform: BoxEvaluationTransform, tiling: Tiling, name: str, skip_bad: bool = False
    ) -> None:
        super().__init__(table, transform, name=name, skip_bad=skip_bad)
        self.tiling = tiling

    def decoded(self, row: dict[str, Any], index: int) -> Image.Image:
        """Image of a row, upright and at full size."""
        return self.upright(row, index)

    def content(self, image: Any, row: dict[str, Any], index: int) -> tuple[Any, ImageBoxes]:  # noqa: ARG002
        """Image and its boxes, crowds included."""
        boxes = ImageBoxes.from_row(row) if self.labelled else ImageBoxes.none(row["image_id"], *image.size)
        return image, boxes

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> tuple[Any, ImageBoxes]:
        """Black image without boxes."""
        return image, ImageBoxes.none(row["image_id"], *image.size)

    def sample(self, content: tuple[Any, ImageBoxes]) -> dict[str, Any]:
        """Sample of `BoxImages`, with `picture` if the image is larger than a tile."""
        image, boxes = content
        found = super().sample((self.transform.prepared(image), boxes))
        if not self.tiling.fits(image.height, image.width):
            found[PICTURE] = as_pixels(image)
        return found


class TiledAnswers:
    """Forward passes of a picture's tiles, and merging of their boxes.

    Args:
        answer: Forward pass without a loss.
        images: Images of the split.
        most: Largest number of boxes per class of a picture; None for all.
    """

    def __init__(self, answer: Answers, images: TiledImages, most: int | None) -> None:
        self.answer, self.images, self.most = answer, images, most

    def __call__(self, batch: dict[str, Any], threshold: float = 0.0) -> Detections:
        """Returns the detections in one picture, from a batch of it alone with its `picture`.

        Args:
            batch: Batch of one image that has been finished, with `picture` (1, 3, height, width).
            threshold: Lowest score of a box; a higher one saves time.
        """
        picture, tiling = batch[PICTURE][0], self.images.tiling
        height, width = picture.shape[-2:]
        views: list[View] = []
        if tiling.full_picture:
            found, _ = self.answer(batch)
            views.append(view_of((0, 0, width, height), found[0]))
        regions = tiling.regions(height, width)
        for first in range(0, len(regions), MOST_AT_ONCE):
            part = regions[first : first + MOST_AT_ONCE]
            samples = [
                self._tile(picture[:, top:bottom, left:right], batch["index"][0]) for left, top, right, bottom in part
            ]
            found, _ = self.answer(self.images.finish(collate_boxes(samples), self.answer.device))
            views += map(view_of, part, found)
        # boxes below half the threshold neither are reported nor make a reported box larger
        views = [View(region, found.above(threshold / 2)) for region, found in views]
        return merge_views(views, tiling.merge, self.most).above(threshold)

    def _tile(self, pixels: torch.Tensor, index: torch.Tensor) -> dict[str, Any]:
        """Makes the sample of a tile, which is treated as an image of its own."""
        image_hw = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        seen = self.images.transform.first_half(
            self.images.transform.prepared(pixels.contiguous()), np.empty((0, 4)), image_hw
        )
        return {"pixel_values": seen.pixels, "target": {"orig_size": torch.tensor(image_hw)}, "index": index}


class TiledEvaluator(BoxEvaluator):
    """Evaluator of a detector that looks at large pictures in tiles.

    Pictures that fit one tile are evaluated in the batches of `BoxEvaluator`, with the same results to the bit. There
    is no loss: it compares what a model says of a picture as a whole.

    Args:
        model: Detector that returns `logits` and `pred_boxes`.
        images: Split with the evaluation transform.
        processor: Image processor of the model.
        num_labels: Number of classes of the data.
        to_data: Data's class number of each class of the model, -1 if it has none; None if they are equal.
    """

    images: TiledImages

    def __init__(
        self, model: nn.Module, images: TiledImages, processor: Any, num_labels: int, to_data: Sequence[int] | None
    ) -> None:
        super().__init__(model, images, processor, num_labels, to_data)
        same = range(num_labels) if to_data is None else to_data
        self.tiled = TiledAnswers(Answers(model, images, processor, same), images, MOST)

    def parts(self, batch_size: int, process: int = 0, processes: int = 1) -> list[Part]:
        """Returns the batches of one process; a picture that is looked at in tiles is a batch of its own."""
        shapes = []
        for row, (width, height) in enumerate(zip(self.truths["width"], self.truths["height"], strict=True)):
            alone = not self.images.tiling.fits(height, width)
            shapes.append((width, height, row) if alone else (width, height))
        return batches_of_one_shape(shapes, batch_size, process, processes)

    def found(self, batch: dict[str, Any]) -> tuple[list[Detections], SplitLoss]:
        """Returns the detections of each image."""
        if PICTURE in batch:
            return [self.tiled(batch)], SplitLoss()
        return self.answer(batch)[0], SplitLoss()

    def loss(self, metrics: DetectionMetrics, bad: list[int]) -> float | None:  # noqa: ARG002
        """Returns None: there is no loss of a picture in tiles."""
        return None


def images_for(
    table: Any, transform: BoxEvaluationTransform, tiling: Tiling | None, name: str, skip_bad: bool
) -> BoxImages:
    """Makes the images of a split for evaluation or prediction, with or without tiles."""
    if tiling is None:
        return BoxImages(table, transform, name=name, skip_bad=skip_bad)
    return TiledImages(table, transform, tiling, name, skip_bad)


__all__ = ["PICTURE", "TiledAnswers", "TiledEvaluator", "TiledImages", "images_for"]
