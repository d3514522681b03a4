"""Image processors of forms that preprocess images themselves: they hand over the images' own pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin


class RawPixels(ImageProcessingMixin):
    """Turns images into batches of their own pixels, for an exported form with preprocessing."""

    model_input_names = ("pixel_values",)
    channels_first = False  # whether pixels are (B, 3, height, width) in place of (B, height, width, 3)

    def __call__(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Pixels of one image, or of several that have one size.

        Args:
            images: Image of Pillow or array (height, width, 3) of levels from 0 to 255, or a sequence of such.
            return_tensors: "pt" for torch, "np" or None for NumPy.

        Returns:
            Batch with `pixel_values` (B, height, width, 3), uint8; (B, 3, height, width) where `channels_first` is set.

        Raises:
            ValueError: The images differ in size.
        """
        several = images if isinstance(images, Sequence) else [images]
        levels = [np.asarray(one.convert("RGB") if isinstance(one, Image.Image) else one) for one in several]
        if len({one.shape for one in levels}) > 1:
            sizes = ", ".join(" x ".join(map(str, one.shape[:2])) for one in levels[:5])
            raise ValueError(f"a batch of raw pixels holds images of one size, got {sizes}")
        pixels = np.stack(levels)
        if self.channels_first:
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return BatchFeature({"pixel_values": torch.from_numpy(pixels) if return_tensors == "pt" else pixels})


class RawBoxPixels(RawPixels):
    """Raw pixels for an exported detector with preprocessing, in the order of axes that data sets with boxes have.

    Args:
        decoder: Image processor of the model that was exported, which reads boxes from the outputs.
    """

    channels_first = True

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def post_process_object_detection(self, *given: Any, **options: Any) -> Any:
        """Reads boxes as the image processor of the model does; the arguments are those of its method."""
        return self.decoder.post_process_object_detection(*given, **options)


__all__ = ["RawBoxPixels", "RawPixels"]
