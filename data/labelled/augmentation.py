"""Augmentation of training images for classifiers."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import str_to_pil_interp
from torch.nn import functional
from torchvision.transforms.v2 import functional as images

from ..pixels.decoding import as_picture, as_pixels, decode_pixels
from ..pixels.finishing import Draws, Finish, draw_jitter
from ..pixels.resizing import Part, centre_part, draw_part, resized, shorter_side_resized
from ..seeding import generator_from_torch, seeded
from .augmentation_settings import Augmentation

# Random erasing (https://arxiv.org/abs/1708.04896) with timm's values: shares of the area, height to width, attempts.
_ERASED_AREA, _ERASED_RATIO, _ATTEMPTS = (0.02, 1 / 3), (0.3, 1 / 0.3), 10


class TrainTransform:
    """Training transform of a classifier, in two halves.

    The loading process decodes, cuts, resizes and, where the recipe asks for it, distorts an image in uint8 (`drawn`);
    `finish` flips, jitters, normalises and erases whole batches on the model's device, with parameters drawn before.

    Args:
        settings: Augmentation settings.
        image_hw: Size (height, width) of the result in pixels.
        mean: Mean of each channel, on the scale [0, 1].
        std: Standard deviation of each channel, on the scale [0, 1].

    Raises:
        ValueError: `settings.rand_augment` is no policy of timm.
    """

    def __init__(self, settings: Augmentation, image_hw: tuple[int, int], mean: list[float], std: list[float]) -> None:
        self.settings, self.image_hw = settings, (image_hw[0], image_hw[1])
        self.least = least_side(settings, self.image_hw)
        self.rand_augment = (
            None if settings.rand_augment is None else _rand_augment(settings, min(self.image_hw), list(mean))
        )
        self.finish = Finish(mean, std)

    def decode(self, value: Any, name: str = "image") -> torch.Tensor:
        """Decodes an image at no larger size than the crops need; see `decode_pixels`."""
        return decode_pixels(value, name, self.least)

    def drawn(
        self, image: Image.Image | torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """First half: pixels (3, height, width), uint8, and the drawn parameters of the second half, (11,).

        Args:
            image: RGB image, of Pillow or (3, height, width) uint8.
            generator: Source of all draws of this image.
        """
        settings = self.settings
        pixels = self._cut(as_pixels(image), generator)
        flips = {
            name: bool(generator.random() < getattr(settings, name)) for name in ("horizontal_flip", "vertical_flip")
        }
        if self.rand_augment is not None:  # it shears about a corner, so that flipping afterwards would not be the same
            pixels = pixels.flip([axis for axis, flip in zip((-1, -2), flips.values(), strict=True) if flip])
            with seeded(int(generator.integers(2**63))):  # timm draws from Python's and NumPy's own generators
                pixels = as_pixels(self.rand_augment(as_picture(pixels)))
            flips = {}
        if settings.three_augment:
            pixels = three_augment(pixels, int(generator.integers(3)), float(generator.uniform(0.1, 2.0)))
        more = self._jitter(generator) | self._erasing(generator)
        return pixels, Draws(**flips, **more).numbers()

    def __call__(self, image: Image.Image | torch.Tensor) -> torch.Tensor:
        """Transforms one image to (C, height, width), fp32, normalised; draws from torch's global generator."""
        pixels, draws = self.drawn(image, generator_from_torch())
        finished: torch.Tensor = self.finish({"pixel_values": pixels[None], "draws": draws[None]})["pixel_values"][0]
        return finished

    def _cut(self, pixels: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Draws the crop and makes it, at the model's size."""
        settings, wanted = self.settings, self.image_hw
        size, mode = (pixels.shape[-2], pixels.shape[-1]), settings.interpolation
        if settings.crop == "random_resized":
            part = draw_part(size, settings.scale, settings.ratio, generator)
            if mode == "random":
                mode = "bicubic" if generator.random() < 0.5 else "bilinear"
            return resized(part.of(pixels), wanted, mode)
        if settings.crop == "padded":
            return _cut_at_random(resized(pixels, wanted, mode), wanted, [max(1, side // 8) for side in wanted],
                                  "constant", generator)  # fmt: skip
        square = wanted[0] == wanted[1]
        pixels = resized(pixels, shorter_side_resized(size, wanted[0]) if square else wanted, mode)
        if settings.crop == "simple":
            return _cut_at_random(pixels, wanted, [4, 4], "reflect", generator)
        return centre_part((pixels.shape[-2], pixels.shape[-1]), wanted).of(pixels)

    def _jitter(self, generator: np.random.Generator) -> dict[str, Any]:
        return draw_jitter(self.settings.color_jitter if self.settings.rand_augment is None else 0.0, generator)

    def _erasing(self, generator: np.random.Generator) -> dict[str, int]:
        probability = self.settings.random_erasing
        if not probability or generator.random() >= probability:
            return {}
        height, width = self.image_hw
        low, high = (math.log(limit) for limit in _ERASED_RATIO)
        for _ in range(_ATTEMPTS):
            area = height * width * generator.uniform(*_ERASED_AREA)
            ratio = math.exp(generator.uniform(low, high))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows < height and columns < width:
                top, left = (int(generator.integers(n + 1)) for n in (height - rows, width - columns))
                noise = int(generator.integers(2**53))
                return {"top": top, "left": left, "height": rows, "width": columns, "noise": noise}
        return {}


def least_side(settings: Augmentation, image_hw: tuple[int, int]) -> int:
    """Pixels that an image's shorter side must have so that no crop must be enlarged that need not be.

    For random crops these are the pixels with which the smallest part, of the most elongated shape, still has the
    model's size; for other crops the image is resized as a whole.
    """
    longer = max(image_hw)
    if settings.crop != "random_resized":
        return longer
    elongation = max(settings.ratio[1], 1 / settings.ratio[0])
    return math.ceil(longer * math.sqrt(elongation / max(settings.scale[0], 1e-4)))


def three_augment(pixels: torch.Tensor, kind: int, sigma: float) -> torch.Tensor:
    """One of the three distortions of DeiT-III (https://arxiv.org/abs/2204.07118) of an image (3, height, width).

    Args:
        pixels: Pixels (3, height, width), uint8.
        kind: 0 for greyscale, 1 for inverting levels of 128 and more, 2 for a Gaussian blur.
        sigma: Width of the blur in pixels; it is cut after 4 pixels on each side.
    """
    if kind == 0:
        return images.rgb_to_grayscale(pixels, num_output_channels=3)
    if kind == 1:
        return images.solarize(pixels, 128)
    weights = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma) ** 2)
    weights = (weights / weights.sum()).reshape(1, 1, 1, 9)
    blurred = functional.pad(pixels.float()[:, None], [4] * 4, mode="reflect")
    blurred = functional.conv2d(functional.conv2d(blurred, weights), weights.mT)
    return blurred[:, 0].round_().to(torch.uint8)


def _cut_at_random(
    pixels: torch.Tensor, wanted: tuple[int, int], padding: list[int], mode: str, generator: np.random.Generator
) -> torch.Tensor:
    """Random part of the wanted size of an image that is padded by (rows, columns) on each side."""
    rows, columns = padding
    padded = np.pad(pixels.numpy(), ((0, 0), (rows, rows), (columns, columns)), mode=mode)  # type: ignore[call-overload]
    top, left = (int(generator.integers(side - part + 1)) for side, part in zip(padded.shape[1:], wanted, strict=True))
    return Part(top, left, *wanted).of(torch.from_numpy(padded))


def _rand_augment(settings: Augmentation, side: int, mean: list[float]) -> Any:
    """RandAugment of timm, with the arguments of timm's own training transform."""
    parameters: dict[str, Any] = {
        "translate_const": int(side * 0.45),
        "img_mean": tuple(min(255, round(255 * channel)) for channel in mean),
    }
    if settings.interpolation != "random":
        parameters["interpolation"] = str_to_pil_interp(settings.interpolation)
    try:
        return rand_augment_transform(settings.rand_augment, parameters)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"`rand_augment` must be a policy of timm like rand-m9-mstd0.5-inc1, got "
                         f"{settings.rand_augment!r}") from error  # fmt: skip


__all__ = ["TrainTransform", "least_side", "three_augment"]
