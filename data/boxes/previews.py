"""Pictures of augmented training batches of a detector, for inspection before training."""

from collections.abc import Sequence

from datasets import Dataset
from PIL import Image

from ..samplers import SampleKey, TrainingOrder
from .augmentation import BoxTransform
from .augmentation_settings import BoxAugmentation
from .dataset import BoxImages, build_box_processor, collate_boxes
from .pictures import batch_picture


def augmented_picture(
    table: Dataset, names: Sequence[str], settings: BoxAugmentation, shortest: int = 480, seed: int = 0, count: int = 8
) -> Image.Image:
    """Picture of the first training batch, with the boxes of its targets.

    Args:
        table: Table with the columns of `BOX_TABLE`.
        names: Class names, in the order of their numbers.
        settings: Augmentation settings.
        shortest: Shorter side of images in evaluation, in pixels.
        seed: Seed of all draws.
        count: Largest number of images.
    """
    processor = build_box_processor(shortest, round(shortest * 1333 / 800))
    mean, std = list(processor.image_mean), list(processor.image_std)
    images = BoxImages(table, BoxTransform(settings, shortest, mean, std), seed)
    keys: list[SampleKey] = TrainingOrder(len(table), min(count, len(table)), seed).batch(0)
    batch = images.finish(collate_boxes([images[key] for key in keys]))
    return batch_picture(batch, names, mean, std)


__all__ = ["augmented_picture"]
