"""Arms of `loader.py --boxes`: ours, our loading up to 0.1, and DetrImageProcessor after torchvision's v2.

All read the same images with the augmentation of the preset `detr-small-data`, at its size, and return a padded batch
with its targets.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional
from transformers import DetrImageProcessor
from vithub.data.boxes.augmentation import BoxTransform
from vithub.data.boxes.dataset import BoxImages, build_box_processor, collate_boxes
from vithub.data.boxes.loading import load_box_data
from vithub.data.images import decode_image
from vithub.data.pixels.cache import PixelCache
from vithub.data.samplers import SampleKey
from vithub.data.seeding import Stream, seeded
from vithub.training.recipe.presets import preset

Arm = Callable[[Sequence[int], int], Any]
RECIPE = preset("detr-small-data")
SIDE = 240 if RECIPE.model.image_size is None else RECIPE.model.image_size
LONGEST = round(SIDE * 1333 / 800)


class Steps:
    """The preset's augmentation of a Pillow image and its boxes, with torchvision's v2 functions."""

    def __init__(self) -> None:
        self.settings, self.scale = RECIPE.boxes, SIDE / 800
        strength = self.settings.color_jitter
        self.jitter = v2.ColorJitter(strength, strength, strength) if strength else v2.Identity()

    def __call__(self, image: Any, boxes: Any) -> tuple[Any, Any, torch.Tensor]:
        """Image, boxes and the indices of those that remain; draws from torch's generator."""
        settings, kept = self.settings, torch.arange(len(boxes))
        for flip, rate in (
            (functional.horizontal_flip, settings.horizontal_flip),
            (functional.vertical_flip, settings.vertical_flip),
        ):
            if torch.rand(()) < rate:
                image, boxes = flip(image), flip(boxes)
        if torch.rand(()) < settings.crop:
            image, boxes = self._resized(image, boxes, settings.crop_sides, None)
            least, most = (max(1, round(side * self.scale)) for side in settings.crop_size)
            width, height = (between(min(least, side), min(most, side)) for side in image.size)
            left, top = between(0, image.width - width), between(0, image.height - height)
            cut = functional.clamp_bounding_boxes(functional.crop(boxes, top, left, height, width))
            sides, before = cut[:, 2:] - cut[:, :2], boxes[:, 2:] - boxes[:, :2]
            seen = (sides > 0).all(dim=1) & (sides.prod(dim=1) >= settings.min_visible * before.prod(dim=1))
            kept = seen.nonzero().flatten()
            image, boxes = functional.crop(image, top, left, height, width), tv_tensors.wrap(cut[kept], like=cut)
        image, boxes = self._resized(image, boxes, settings.sides, settings.longest)
        return self.jitter(image), boxes, kept

    def _resized(self, image: Any, boxes: Any, sides: tuple[int, ...], longest: int | None) -> tuple[Any, Any]:
        factor = sides[between(0, len(sides) - 1)] * self.scale / min(image.size)
        if longest is not None:
            factor = min(factor, longest * self.scale / max(image.size))
        size = [max(1, round(image.height * factor)), max(1, round(image.width * factor))]
        return functional.resize(image, size, InterpolationMode.BILINEAR), functional.resize(boxes, size)


def between(low: int, high: int) -> int:
    """An integer drawn evenly, both ends included."""
    return int(torch.randint(low, high + 1, ()))


def as_boxes(row: dict[str, Any]) -> Any:
    """Boxes of a row, for torchvision."""
    boxes = torch.tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(row["height"], row["width"]))


def box_arms(source: str) -> tuple[Any, dict[str, Arm]]:
    """Table of training images and the arms, each of which loads a batch of rows in an epoch."""
    table = load_box_data(source).train
    processor = build_box_processor(SIDE, LONGEST)
    mean, std = list(processor.image_mean), list(processor.image_std)
    transform = BoxTransform(RECIPE.boxes, SIDE, mean, std)
    plain, cached = BoxImages(table, transform), BoxImages(table, transform)
    cached.cache = PixelCache(len(table), 2**32)
    steps, normalise = Steps(), v2.Normalize(mean, std)
    theirs = DetrImageProcessor(do_resize=False, image_mean=mean, image_std=std)

    def ours(images: BoxImages, finish: bool) -> Arm:
        def load(rows: Sequence[int], epoch: int) -> Any:
            batch = collate_boxes([images[SampleKey(row, epoch, row)] for row in rows])
            return images.finish(batch) if finish else batch

        return load

    def before(rows: Sequence[int], epoch: int) -> Any:
        """Our loading up to 0.1: one image after the other, on Pillow images, in fp32 from the loading process."""
        samples = []
        for number in rows:
            row = table[number]
            with seeded(0, Stream.SAMPLE, epoch, number):
                image, boxes, kept = steps(decode_image(row["image"]), as_boxes(row))
            pixels = normalise(functional.to_dtype(functional.pil_to_tensor(image), torch.float32, scale=True))
            height, width = pixels.shape[1:]
            corners = boxes.as_subclass(torch.Tensor) / torch.tensor([width, height] * 2)
            middle = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
            target = {"class_labels": torch.tensor(row["classes"])[kept], "boxes": middle}
            samples.append({"pixel_values": pixels, "target": target})
        return collate_boxes(samples)

    def peer(rows: Sequence[int], epoch: int) -> Any:  # noqa: ARG001
        images, annotations = [], []
        for number in rows:
            row = table[number]
            encoded = row["image"]["bytes"]
            source = row["image"]["path"] if encoded is None else io.BytesIO(encoded)
            image, boxes, kept = steps(Image.open(source).convert("RGB"), as_boxes(row))
            left_top, right_bottom = boxes.as_subclass(torch.Tensor).split(2, dim=1)
            found = torch.cat([left_top, right_bottom - left_top], dim=1).tolist()
            objects = [
                {"bbox": box, "category_id": row["classes"][n], "area": box[2] * box[3], "iscrowd": 0}
                for n, box in zip(kept.tolist(), found, strict=True)
            ]
            images.append(image)
            annotations.append({"image_id": number, "annotations": objects})
        return theirs(images, annotations=annotations, return_tensors="pt")

    return table, {
        "ours, uint8": ours(plain, False),
        "ours, uint8, cached": ours(cached, False),
        "ours, finished on the CPU": ours(plain, True),
        "ours, finished on the CPU, cached": ours(cached, True),
        "ours up to 0.1": before,
        "torchvision v2 and DetrImageProcessor": peer,
    }


__all__ = ["box_arms"]
