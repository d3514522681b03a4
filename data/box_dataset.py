"""Rows of a table of boxes as tensors, and as padded batches, for a data loader."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset as Table
from PIL import Image
from torch.utils.data import Dataset
from transformers import ConditionalDetrImageProcessor, DetrImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .box_augmentation import Augmented, BoxTransform
from .box_data import ImageBoxes
from .images import BadImageError, decode_image
from .samplers import SampleKey
from .seeding import Stream, derived_generator, seeded


def build_box_processor(
    shortest: int = 800,
    longest: int = 1333,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    focal: bool = False,
) -> Any:
    """The stock processor of a detector: resize, scale to [0, 1], normalise, pad with a mask.

    What `pipeline` makes of the logits is the processor's: with `focal` they are independent sigmoids.

    Args:
        shortest: Pixels of the shorter side.
        longest: Pixels that the longer side may have; the shorter is then less.
        mean: Per channel, on the scale [0, 1].
        std: Likewise.
        focal: Whether the model learned with the focal loss.
    """
    if not 1 <= shortest <= longest:
        raise ValueError(f"the shorter side must be 1 to the longest, got {shortest} and {longest}")
    size = {"shortest_edge": shortest, "longest_edge": longest}
    processor = ConditionalDetrImageProcessor if focal else DetrImageProcessor
    return processor(size=size, image_mean=list(mean), image_std=list(std))


class BoxPixels(NamedTuple):
    """What a detector's pixels are, see `build_box_processor`."""

    shortest: int
    longest: int
    mean: list[float]
    std: list[float]


def box_pixels(processor: Any) -> BoxPixels:
    """Of a detector's saved processor.

    Raises:
        ValueError: It states no shorter side.
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
    """PIL image and boxes to what the model sees, by the image processor that is saved beside the weights."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, image: Image.Image, boxes: torch.Tensor) -> Augmented:
        """All boxes are kept, and resized as the image is."""
        pixels = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        height, width = pixels.shape[-2:]
        scale = torch.tensor([width / image.width, height / image.height] * 2)
        return Augmented(pixels, boxes.float() * scale, torch.arange(len(boxes)))


class BoxImages(Dataset[dict[str, Any]]):
    """Decoded, transformed images with their boxes.

    A row is asked for by its number (evaluation), or by a `SampleKey`, from which all random choices of the transform
    are drawn (training). Crowds are left out of the targets.

    Args:
        table: With the columns of `BOX_TABLE`.
        transform: Of image and boxes.
        seed: Of the random choices.
        name: Of the split, for messages.
        skip_bad: In training, another image, drawn at random, takes the place of one that cannot be decoded.
    """

    def __init__(
        self,
        table: Table,
        transform: BoxTransform | BoxEvaluationTransform,
        seed: int = 0,
        name: str = "train",
        skip_bad: bool = False,
    ) -> None:
        self.table, self.transform, self.seed, self.name, self.skip_bad = table, transform, seed, name, skip_bad

    def __len__(self) -> int:
        return len(self.table)

    def describe(self, index: int) -> str:
        """File or row of an image, for messages."""
        row = self.table[index]
        place = f"row {index} of split {self.name!r} (image {row['image_id']})"
        path = row["image"].get("path")
        return f"{path} ({place})" if path else place

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """`pixel_values` (3, height, width), `target` and `index`; in training `epoch` and `position` too.

        The target has `class_labels` (n,) int64, `boxes` (n, 4) fp32 as centre, width and height relative to the image,
        `area` (n,) in pixels of the image that is seen, `image_id` as text, `orig_size` and `size` (2,) as height and
        width of the upright image and of the one that is seen. With `skip_bad` there is `bad` as `LabelledImages` has
        it.

        Raises:
            BadImageError: It cannot be decoded, and `skip_bad` is not set.
        """
        if not isinstance(key, SampleKey):
            return {**self._sample(*self._row(int(key))), "index": torch.tensor(int(key))}
        index, bad = key.index, -1
        draws = derived_generator(self.seed, Stream.REPLACEMENT, key.epoch, key.position)
        for _ in range(100):
            try:
                image, boxes = self._row(index)
                break
            except BadImageError:
                if not self.skip_bad:
                    raise
                bad, index = key.index, int(draws.integers(len(self)))
        else:
            raise BadImageError(f"split {self.name!r}: 100 images drawn one after the other could not be decoded")
        with seeded(self.seed, Stream.SAMPLE, key.epoch, key.position):
            sample = self._sample(image, boxes)
        place = {"epoch": torch.tensor(key.epoch), "position": torch.tensor(key.position)}
        noted = {"bad": torch.tensor(bad)} if self.skip_bad else {}
        return {**sample, "index": torch.tensor(index), **place, **noted}

    def _row(self, index: int) -> tuple[Image.Image, ImageBoxes]:
        row = self.table[index]
        place = f"row {index} of split {self.name!r}"
        image, boxes = decode_image(row["image"], place), ImageBoxes.from_row(row)
        if image.size != (boxes.width, boxes.height):
            raise BadImageError(
                f"{place}: the image is {image.width} x {image.height} pixels, its boxes are for {boxes.width} x "
                f"{boxes.height}: it was changed after it was checked"
            )
        return image, boxes

    def _sample(self, image: Image.Image, boxes: ImageBoxes) -> dict[str, Any]:
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
    """Samples as a batch, smaller images padded with zeros at the right and below.

    Args:
        samples: As `BoxImages` gives them.
        multiple_of: What the batch's height and width are rounded up to.

    Returns:
        `pixel_values` (B, 3, H, W), `pixel_mask` (B, H, W) int64 with 1 on the images, `labels`: the targets, whose
        boxes stay relative to the images without padding; and `index` and others, (B,).
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
