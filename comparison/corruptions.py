"""Common corruptions at five severities, after Hendrycks and Dietterich 2019 (https://arxiv.org/abs/1903.12261).

They are built on torchvision, which the package needs anyway: the packaged sets (imagecorruptions,
imagecorruptions-imaug, corrupt-tta) all need OpenCV and scikit-image, and the first was last released in 2020. Eleven
of the paper's nineteen corruptions are included, with its parameters; lengths are given for images of 224 pixels and
scaled with the image. Defocus, glass and zoom blur, snow, frost, fog, spatter and speckle noise are missing, so a mean
over these corruptions is not the paper's mCE.
"""

import io
from collections.abc import Callable

import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2 import functional as pixels_v2

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]


def corrupt(image: torch.Tensor, name: str, severity: int, seed: int) -> torch.Tensor:
    """Returns a corrupted copy of an image.

    Args:
        image: RGB image, (3, H, W), uint8.
        name: Name of the corruption, one of `CORRUPTIONS`.
        severity: Severity, 1 to 5.
        seed: Seed of the corruption's random choices.

    Returns:
        Corrupted image, (3, H, W), uint8.

    Raises:
        ValueError: The corruption or severity does not exist, or the image has another shape or dtype.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"there is no corruption {name!r}; there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"a severity lies in 1 to 5, got {severity!r}")
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"`image` must be (3, H, W) of uint8, got {tuple(image.shape)} of {image.dtype}")
    return CORRUPTIONS[name](image, severity - 1, torch.Generator().manual_seed(seed))


def _scale(image: torch.Tensor) -> float:
    return min(image.shape[1:]) / 224


def _quantised(pixels: torch.Tensor) -> torch.Tensor:
    """Converts pixels in [0, 1] to uint8."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def _gaussian_noise(image: torch.Tensor, level: int, generator: torch.Generator) -> torch.Tensor:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    return _quantised(image / 255 + deviation * torch.randn(image.shape, generator=generator))


def _shot_noise(image: torch.Tensor, level: int, generator: torch.Generator) -> torch.Tensor:
    photons = (60, 25, 12, 5, 3)[level]
    return _quantised(torch.poisson(image / 255 * photons, generator=generator) / photons)


def _impulse_noise(image: torch.Tensor, level: int, generator: torch.Generator) -> torch.Tensor:
    part = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    draw = torch.rand(image.shape, generator=generator)
    salted = torch.where(draw < part / 2, torch.zeros_like(image), image)
    return torch.where(draw > 1 - part / 2, torch.full_like(image, 255), salted)


def _gaussian_blur(image: torch.Tensor, level: int, _: torch.Generator) -> torch.Tensor:
    sigma = max((1, 2, 3, 4, 6)[level] * _scale(image), 0.1)
    size = 2 * max(1, round(3 * sigma)) + 1
    limit = 2 * min(image.shape[1:]) - 1  # largest kernel that reflection at the edge allows
    return pixels_v2.gaussian_blur(image, [min(size, limit)] * 2, [sigma, sigma])


def _motion_blur(image: torch.Tensor, level: int, generator: torch.Generator) -> torch.Tensor:
    length = max(2 * round((10, 15, 15, 20, 20)[level] * _scale(image) / 2) + 1, 3)
    sigma = max((3, 5, 8, 12, 15)[level] * _scale(image), 0.3)
    angle = float(torch.rand((), generator=generator)) * 90 - 45
    weights = torch.exp(-0.5 * (torch.arange(length) / sigma) ** 2)  # one-sided: a trail behind each point
    kernel = torch.zeros(1, 2 * length - 1, 2 * length - 1)
    kernel[0, length - 1, length - 1 :] = weights
    kernel = pixels_v2.rotate(kernel, angle, interpolation=pixels_v2.InterpolationMode.BILINEAR)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    padded = functional.pad((image / 255)[None], (length - 1,) * 4, mode="replicate")
    return _quantised(functional.conv2d(padded, kernel, groups=3)[0])


def _jpeg(image: torch.Tensor, level: int, _: torch.Generator) -> torch.Tensor:
    file = io.BytesIO()
    pixels_v2.to_pil_image(image).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    return torch.as_tensor(pixels_v2.pil_to_tensor(Image.open(file)))


def _pixelate(image: torch.Tensor, level: int, _: torch.Generator) -> torch.Tensor:
    part = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    height, width = image.shape[1:]
    small = pixels_v2.resize(image, [max(1, round(height * part)), max(1, round(width * part))], antialias=True)
    return pixels_v2.resize(small, [height, width], interpolation=pixels_v2.InterpolationMode.NEAREST_EXACT)


def _contrast(image: torch.Tensor, level: int, _: torch.Generator) -> torch.Tensor:
    pixels, part = image / 255, (0.4, 0.3, 0.2, 0.1, 0.05)[level]
    middle = pixels.mean((1, 2), keepdim=True)
    return _quantised((pixels - middle) * part + middle)


def _brightness(image: torch.Tensor, level: int, _: torch.Generator) -> torch.Tensor:
    """Adds to the value in HSV: the channels grow in proportion, the largest by the amount of the severity."""
    pixels, more = image / 255, (0.1, 0.2, 0.3, 0.4, 0.5)[level]
    value = pixels.amax(0, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return _quantised(torch.where(value > 0, pixels * brighter / value.clamp(min=1e-6), brighter))


def _saturate(image: torch.Tensor, level: int, _: torch.Generator) -> torch.Tensor:
    return pixels_v2.adjust_saturation(image, (0.3, 0.1, 2.0, 5.0, 20.0)[level])


def _elastic(image: torch.Tensor, level: int, generator: torch.Generator) -> torch.Tensor:
    """Displaces neighbourhoods smoothly by up to a few pixels."""
    reach, coarse = ((2.0, 30), (3.5, 24), (5.0, 20), (7.0, 16), (9.0, 12))[level]
    height, width = image.shape[1:]
    cells = [max(2, round(side / (coarse * max(_scale(image), 1e-3)))) for side in (height, width)]
    field = torch.randn(1, 2, *cells, generator=generator) * reach * _scale(image)
    smooth = functional.interpolate(field, (height, width), mode="bicubic", align_corners=True)[0]
    # torchvision expects displacements in units of -1 to 1 over the image, (1, H, W, 2).
    shift = torch.stack([2 * smooth[0] / width, 2 * smooth[1] / height], dim=-1)[None]
    return pixels_v2.elastic(image, shift)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "gaussian blur": _gaussian_blur,
    "motion blur": _motion_blur,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
    "contrast": _contrast,
    "brightness": _brightness,
    "saturate": _saturate,
    "elastic": _elastic,
}


def permute_cells(pixels: torch.Tensor, grid: int, generator: torch.Generator) -> torch.Tensor:
    """Shuffles the cells of a grid x grid in images (B, C, H, W), each image in its own order.

    The rest at the lower and right edge, where the grid does not divide the image, stays in place.
    """
    batch, channels, height, width = pixels.shape
    rows, columns = height // grid, width // grid
    if min(rows, columns) < 1:
        raise ValueError(f"a grid of {grid} x {grid} does not fit an image of {(height, width)} pixels")
    cells = _cells(pixels[:, :, : rows * grid, : columns * grid], grid)
    order = torch.stack([torch.randperm(grid * grid, generator=generator) for _ in range(batch)])
    shuffled = torch.gather(cells, 1, order[:, :, None, None, None].expand_as(cells))
    out = pixels.clone()
    tiled = shuffled.view(batch, grid, grid, channels, rows, columns).permute(0, 3, 1, 4, 2, 5)
    out[:, :, : rows * grid, : columns * grid] = tiled.reshape(batch, channels, rows * grid, columns * grid)
    return out


def drop_cells(pixels: torch.Tensor, grid: int, part: float, generator: torch.Generator) -> torch.Tensor:
    """Sets a share `part` of the cells of a grid x grid to 0, the mean colour, in normalised images (B, C, H, W)."""
    batch, _, height, width = pixels.shape
    rows, columns = height // grid, width // grid
    if min(rows, columns) < 1:
        raise ValueError(f"a grid of {grid} x {grid} does not fit an image of {(height, width)} pixels")
    count = round(part * grid * grid)
    kept = torch.ones(batch, grid * grid)
    for row in kept:
        row[torch.randperm(grid * grid, generator=generator)[:count]] = 0
    mask = kept.view(batch, 1, grid, grid).repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    out = pixels.clone()
    out[:, :, : rows * grid, : columns * grid] *= mask
    return out


def _cells(pixels: torch.Tensor, grid: int) -> torch.Tensor:
    """Cuts images into the cells of a grid, (B, grid * grid, C, h, w)."""
    batch, channels, height, width = pixels.shape
    split = pixels.view(batch, channels, grid, height // grid, grid, width // grid)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, channels, height // grid, width // grid)


__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt", "drop_cells", "permute_cells"]
