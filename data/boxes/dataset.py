"""Torch data set of images with boxes, collation of its samples into padded batches, and the image processor."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset as Table
from PIL import Image
from transformers import ConditionalDetrImageProcessor, DetrImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..images import BadImageError
from ..row_images import RowImages
from .augmentation import Augmented, BoxTransform
from .tables import ImageBoxes


def build_box_processor(
    shortest: int = 800,
    longest: int = 1333,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    focal: bool = False,
) -> Any:
    """Builds the stock image processor of a detector: resize, scale to [0, 1], normalise, pad with a mask.

    The processor also converts logits to detections in `pipeline`: with `focal`, by independent sigmoids.

    Args:
        shortest: Shorter side of the resized image in pixels.
        longest: Largest longer side of the resized image in pixels; the shorter side is smaller where it applies.
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].
        focal: Whether the model is trained with the focal loss.

    Raises:
        ValueError: `shortest` is not 1 to `longest`.
    """
    if not 1 <= shortest <= longest:
        raise ValueError(f"the shorter side must be 1 to the longest, got {shortest} and {longest}")
    size = {"shortest_edge": shortest, "longest_edge": longest}
    processor = ConditionalDetrImageProcessor if focal else DetrImageProcessor
    return processor(size=size, image_mean=list(mean), image_std=list(std))


class BoxPixels(NamedTuple):
    """Size and normalisation of a detector's input; the fields are the arguments of `build_box_processor`."""

    shortest: int
    longest: int
    mean: list[float]
    std: list[float]


def box_pixels(processor: Any) -> BoxPixels:
    """Input size and normalisation that a detector's saved image processor states.

    Raises:
        ValueError: The processor states no shorter side.
    """
    values = processor.to_dict()
    size = values.get("size") or {}
    shortest = size.get("shortest_edge") or min(size.get("height") or 0, size.get("width") or 0)
    longest = size.get("longest_edge") or max(size.get("height") or 0, size.get("width") or 0) or shortest
    if not shortest:
        raise ValueError(f"{type(processor).__name__} states no size of the model's pixels, only {size}")
    mean, std = values.get("image_mean"), values.get("image_std")
    if not values.get("do_normalize", True) or mean is None or std is None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return BoxPixels(shortest, longest, list(mean), list(std))


class BoxEvaluationTransform:
    """Evaluation transform: the image processor that is saved beside the weights, applied to a PIL image and boxes."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: Image.Image, boxes: torch.Tensor) -> Augmented:
        """Transforms an image with boxes (n, 4), corners in pixels; all boxes are kept and resized with the image."""
        pixels = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        height, width = pixels.shape[-2:]
        scale = torch.tensor([width / image.width, height / image.height] * 2)
        return Augmented(pixels, boxes.float() * scale, torch.arange(len(boxes)))


class BoxImages(RowImages):
    """Data set of decoded, transformed images with their boxes: `pixel_values` (3, height, width) and `target`.

    The target has `class_labels` (n,) int64, `boxes` (n, 4) fp32 as center x, center y, width, height relative to the
    image, `area` (n,) in square pixels of the transformed image, `image_id` as text, and `orig_size` and `size` (2,),
    the (height, width) of the upright and of the transformed image. Crowds are left out of the target.

    Args:
        table: Table with the columns of `BOX_TABLE`; or "image" and "image_id" only, where boxes are only predicted.
        transform: Transform of an image and its boxes.
        seed: Seed of the random choices.
        name: Name of the split in messages.
        skip_bad: Whether images that cannot be decoded are skipped instead of raising; see `RowImages`.
    """

    def __init__(
        self,
        table: Table,
        transform: BoxTransform | BoxEvaluationTransform,
        seed: int = 0,
        name: str = "train",
        skip_bad: bool = False,
    ) -> None:
        super().__init__(table, transform, seed, name, skip_bad)
        self.labelled = "boxes" in table.column_names

    def place(self, index: int) -> str:
        """Row and id of an image, as messages name it."""
        return f"{super().place(index)} (image {self.table[index]['image_id']})"

    def content(self, image: Image.Image, row: dict[str, Any], index: int) -> tuple[Image.Image, ImageBoxes]:
        """Image and its boxes, crowds included.

        Raises:
            BadImageError: The image has another size than when its boxes were checked.
        """
        if not self.labelled:
            return image, ImageBoxes.none(row["image_id"], *image.size)
        boxes = ImageBoxes.from_row(row)
        if image.size != (boxes.width, boxes.height):
            raise BadImageError(
                f"{self.place(index)}: the image is {image.width} x {image.height} pixels, its boxes are for "
                f"{boxes.width} x {boxes.height}: it was changed after it was checked"
            )
        return image, boxes

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> tuple[Image.Image, ImageBoxes]:
        """Black image without boxes."""
        return image, ImageBoxes.none(row["image_id"], *image.size)

    def sample(self, content: tuple[Image.Image, ImageBoxes]) -> dict[str, Any]:
        """Sample with `pixel_values` and `target`."""
        image, boxes = content
        wanted = np.flatnonzero(~boxes.crowd)
        seen = self.transform(image, torch.from_numpy(boxes.boxes[wanted]))
        height, width = seen.pixels.shape[-2:]
        size = torch.tensor([width, height] * 2, dtype=torch.float32)
        relative = (seen.boxes.float() / size).clamp(0, 1)
        first, second = relative[:, :2], relative[:, 2:]
        target = {
            "class_labels": torch.from_numpy(boxes.classes[wanted])[seen.kept],
            "boxes": torch.cat([(first + second) / 2, second - first], dim=1),
            "area": ((second - first) * size[:2]).prod(dim=1),
            "image_id": boxes.image_id,
            "orig_size": torch.tensor([boxes.height, boxes.width]),
            "size": torch.tensor([height, width]),
        }
        return {"pixel_values": seen.pixels, "target": target}


def collate_boxes(samples: Sequence[dict[str, Any]], multiple_of: int = 1) -> dict[str, Any]:
    """Collates samples into a batch, in which smaller images are padded with zeros at the right and bottom.

    Args:
        samples: Samples as `BoxImages` returns them.
        multiple_of: Number of pixels to whose multiples the batch's height and width are rounded up.

    Returns:
        `pixel_values` (B, 3, H, W); `pixel_mask` (B, H, W) int64, 1 on the images; `labels`, the targets, whose boxes
        stay relative to the images without padding; and `index` and the other entries of the samples, (B,).
    """
    sizes = [sample["pixel_values"].shape[-2:] for sample in samples]
    height, width = (-(-max(sides) // multiple_of) * multiple_of for sides in zip(*sizes, strict=True))
    pixels = torch.zeros(len(samples), 3, height, width)
    mask = torch.zeros(len(samples), height, width, dtype=torch.int64)
    for number, (sample, (rows, columns)) in enumerate(zip(samples, sizes, strict=True)):
        pixels[number, :, :rows, :columns] = sample["pixel_values"]
        mask[number, :rows, :columns] = 1
    others = [name for name in samples[0] if name not in ("pixel_values", "target")]
    numbers = {name: torch.stack([sample[name] for sample in samples]) for name in others}
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": [sample["target"] for sample in samples], **numbers}


__all__ = [
    "BoxEvaluationTransform",
    "BoxImages",
    "BoxPixels",
    "box_pixels",
    "build_box_processor",
    "collate_boxes",
]
