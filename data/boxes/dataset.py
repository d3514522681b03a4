"""Torch data set of images with boxes, collation of its samples into padded batches, and the image processor."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset as Table
from PIL import Image
from transformers import (
    ConditionalDetrImageProcessor,
    DeformableDetrImageProcessor,
    DetrImageProcessor,
    RTDetrImageProcessor,
    YolosImageProcessor,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..columns import IMAGE
from ..images import BadImageError, decode_image, decode_sized
from ..pixels.decoding import as_picture, as_pixels
from ..pixels.finishing import Finish
from ..row_images import RowImages
from ..samplers import SampleKey
from ..seeding import Stream, sample_generator
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


# Image processors that resize in uint8, then scale and normalise, and pad single images with nothing.
_SPLIT = (
    ConditionalDetrImageProcessor,
    DeformableDetrImageProcessor,
    DetrImageProcessor,
    RTDetrImageProcessor,
    YolosImageProcessor,
)


class BoxEvaluationTransform:
    """Evaluation transform: the image processor that is saved beside the weights, applied to an image and boxes.

    transformers' processors of detectors are followed step by step: the image is resized in uint8 by the processor's
    own method (`prepared`), and `finish` scales and normalises whole batches on the model's device; other processors
    are called as they are.
    """

    least: int | None = None  # evaluation decodes images at full size

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor
        steps = all(getattr(image_processor, name, False) for name in ("do_resize", "do_rescale"))
        own = type(image_processor) in _SPLIT and getattr(image_processor, "pad_size", None) is None
        self.in_levels = own and steps and image_processor.rescale_factor == 1 / 255
        pixels = box_pixels(image_processor) if self.in_levels else None
        self.finish = None if pixels is None else Finish(pixels.mean, pixels.std)

    def prepared(self, image: Image.Image | torch.Tensor) -> Any:
        """Resized pixels (3, height, width), uint8; the image of Pillow where the processor is called as it is."""
        if not self.in_levels:
            return as_picture(image) if isinstance(image, torch.Tensor) else image
        own = self.image_processor
        return own.resize(as_pixels(image), own.size, own.resample)

    def first_half(self, image: Any, boxes: np.ndarray, image_hw: tuple[int, int]) -> Augmented:
        """First half: `image` as `prepared` returns it, or its finished pixels, and all boxes, resized with the image.

        Args:
            image: Image, as `prepared` returns it.
            boxes: Boxes (n, 4): left, top, right, bottom in pixels of the stored image.
            image_hw: Height and width of the stored, upright image.
        """
        if not isinstance(image, torch.Tensor):
            image = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        height, width = image.shape[-2:]
        scale = torch.tensor([width / image_hw[1], height / image_hw[0]] * 2)
        return Augmented(image, torch.from_numpy(boxes).float() * scale, torch.arange(len(boxes)))

    def __call__(self, image: Image.Image, boxes: torch.Tensor) -> Augmented:
        """Transforms an image with boxes (n, 4), corners in pixels; all boxes are kept and resized with the image."""
        pixels = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return self.first_half(pixels, boxes.double().numpy(), (image.height, image.width))


class BoxImages(RowImages):
    """Data set of decoded, transformed images with their boxes: `pixel_values` (3, height, width) and `target`.

    `pixel_values` are uint8, and in training `draws` holds what was drawn for the last steps: `finish` makes them for a
    batch of `collate_boxes`. With an image processor that cannot be split they are fp32 and finished.

    The target has `class_labels` (n,) int64, `boxes` (n, 4) fp32 as center x, center y, width, height relative to the
    finished image, `area` (n,) in square pixels of that image, `image_id` as text, and `orig_size` and `size` (2,),
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
        return self._place(index, self.table[index])

    def _place(self, index: int, row: dict[str, Any]) -> str:
        return f"{super().place(index)} (image {row['image_id']})"

    def decoded(self, row: dict[str, Any], index: int) -> Any:
        """Image of a row, decoded at no larger size than is needed and, where boxes are known, prepared.

        Raises:
            BadImageError: The image cannot be decoded, or has another size than when its boxes were checked.
        """
        image = self.upright(row, index)
        return self.transform.prepared(image) if self.labelled else image

    def upright(self, row: dict[str, Any], index: int) -> Image.Image:
        """Upright image of a row, decoded at no larger size than is needed; see `decoded`."""
        place = self._place(index, row)
        if not self.labelled:
            return decode_image(row[IMAGE], place)
        image, (height, width) = decode_sized(row[IMAGE], place, self.transform.least)
        if (height, width) != (row["height"], row["width"]):
            raise BadImageError(
                f"{place}: the image is {width} x {height} pixels, its boxes are for "
                f"{row['width']} x {row['height']}: it was changed after it was checked"
            )
        return image

    def content(self, image: Any, row: dict[str, Any], index: int) -> tuple[Any, ImageBoxes]:  # noqa: ARG002
        """Prepared image and its boxes, crowds included."""
        if self.labelled:
            return image, ImageBoxes.from_row(row)
        return self.transform.prepared(image), ImageBoxes.none(row["image_id"], *image.size)

    def empty_content(self, image: Image.Image, row: dict[str, Any]) -> tuple[Any, ImageBoxes]:
        """Black image without boxes."""
        return self.transform.prepared(image), ImageBoxes.none(row["image_id"], *image.size)

    def sample(self, content: tuple[Any, ImageBoxes]) -> dict[str, Any]:
        """Sample with `pixel_values` and `target`; the training transform draws from torch's global generator."""
        image, boxes = content
        wanted = np.flatnonzero(~boxes.crowd)
        return _sample(self.transform.first_half(image, boxes.boxes[wanted], _size(boxes)), boxes, wanted)

    def drawn_sample(self, content: tuple[Any, ImageBoxes], key: SampleKey) -> dict[str, Any]:
        """Sample whose random choices are drawn from its key."""
        if not isinstance(self.transform, BoxTransform):
            return self.sample(content)
        image, boxes = content
        wanted = np.flatnonzero(~boxes.crowd)
        generator = sample_generator(self.seed, Stream.SAMPLE, key.epoch, key.position)
        return _sample(self.transform.first_half(image, boxes.boxes[wanted], _size(boxes), generator), boxes, wanted)


def _size(boxes: ImageBoxes) -> tuple[int, int]:
    return boxes.height, boxes.width


def _sample(seen: Augmented, boxes: ImageBoxes, wanted: np.ndarray) -> dict[str, Any]:
    """Sample of an image whose `wanted` boxes were transformed."""
    height, width = seen.pixels.shape[-2:]
    size = torch.tensor([width, height] * 2, dtype=torch.float32)
    relative = (seen.boxes / size).clamp(0, 1)
    first, second = relative[:, :2], relative[:, 2:]
    target = {
        "class_labels": torch.from_numpy(boxes.classes[wanted])[seen.kept],
        "boxes": torch.cat([(first + second) / 2, second - first], dim=1),
        "area": ((second - first) * size[:2]).prod(dim=1),
        "image_id": boxes.image_id,
        "orig_size": torch.tensor([boxes.height, boxes.width]),
        "size": torch.tensor([height, width]),
    }
    sample = {"pixel_values": seen.pixels, "target": target}
    return sample if seen.draws is None else {**sample, "draws": seen.draws}


def collate_boxes(samples: Sequence[dict[str, Any]], multiple_of: int = 1) -> dict[str, Any]:
    """Collates samples into a batch, in which smaller images are padded with zeros at the right and bottom.

    Args:
        samples: Samples as `BoxImages` returns them.
        multiple_of: Number of pixels to whose multiples the batch's height and width are rounded up.

    Returns:
        `pixel_values` (B, 3, H, W) in the dtype of the samples; `pixel_mask` (B, H, W) int64, 1 on the images;
        `labels`, the targets, whose boxes stay relative to the images without padding; and `index` and the other
        entries of the samples, (B,) or (B, n).
    """
    sizes = [sample["pixel_values"].shape[-2:] for sample in samples]
    height, width = (-(-max(sides) // multiple_of) * multiple_of for sides in zip(*sizes, strict=True))
    pixels = torch.zeros(len(samples), 3, height, width, dtype=samples[0]["pixel_values"].dtype)
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
