"""What a detector will be shown: pictures of augmented batches, to look at before training."""

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
    """The first batch of a training, with the boxes of its targets.

    Args:
        table: With the columns of `BOX_TABLE`.
        names: Of the classes.
        settings: Of the augmentation.
        shortest: Pixels of the shorter side in evaluation.
        seed: Of all draws.
        count: Most images.
    """
    processor = build_box_processor(shortest, round(shortest * 1333 / 800))
    mean, std = list(processor.image_mean), list(processor.image_std)
    images = BoxImages(table, BoxTransform(settings, shortest, mean, std), seed)
    keys: list[SampleKey] = TrainingOrder(len(table), min(count, len(table)), seed).batch(0)
    return batch_picture(collate_boxes([images[key] for key in keys]), names, mean, std)


__all__ = ["augmented_picture"]
