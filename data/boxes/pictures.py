"""Pictures of images with boxes, and contact sheets, for inspection before and after training."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

# Palette of Okabe and Ito, which colour-blind people can tell apart.
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
CROWD = "#BBBBBB"


def color_of(number: int) -> str:
    """Colour of a class, as a hexadecimal string."""
    return COLORS[number % len(COLORS)]


def draw_boxes(
    image: Image.Image,
    boxes: np.ndarray,
    texts: Sequence[str] | None = None,
    colors: Sequence[str] | None = None,
    width: int | None = None,
) -> Image.Image:
    """Draws boxes on a copy of an image.

    Args:
        image: PIL image, which is converted to RGB.
        boxes: Boxes (n, 4): left, top, right, bottom in pixels.
        texts: Text written above each box; None writes none.
        colors: Colour of each box; None draws all in the same colour.
        width: Width of the lines in pixels; None derives it from the size of the image.
    """
    picture = image.convert("RGB")
    picture = picture.copy() if picture is image else picture
    draw = ImageDraw.Draw(picture)
    line = width or max(1, round(max(picture.size) / 300))
    letters = max(10, round(max(picture.size) / 45))
    font = ImageFont.load_default(size=letters)
    for number, box in enumerate(np.asarray(boxes, dtype=float).reshape(-1, 4)):
        color = colors[number] if colors is not None else COLORS[5]
        left, top, right, bottom = box.tolist()
        draw.rectangle([min(left, right), min(top, bottom), max(left, right), max(top, bottom)], None, color, line)
        if texts is not None and texts[number]:
            text = texts[number].replace("\n", " ")
            below = top - letters - 3 < 0
            place = (max(left, 0), max(top + line, 0) if below else top - letters - 3)
            draw.rectangle(draw.textbbox(place, text, font=font), fill=color)
            draw.text(place, text, fill="black", font=font)
    return picture


def contact_sheet(images: Sequence[Image.Image], titles: Sequence[str] | None = None, tile: int = 480) -> Image.Image:
    """Arranges images in a grid, each within `tile` x `tile` pixels and under its title.

    Raises:
        ValueError: There are no images.
    """
    if not images:
        raise ValueError("there are no images to put side by side")
    columns = max(1, round(len(images) ** 0.5 + 0.3))
    rows = -(-len(images) // columns)
    shown = [_within(image.convert("RGB"), tile) for image in images]
    band = 20 if titles is not None else 0
    high = max(image.height for image in shown) + band
    sheet = Image.new("RGB", (columns * (tile + 8) - 8, rows * (high + 8) - 8), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, image in enumerate(shown):
        left, top = number % columns * (tile + 8), number // columns * (high + 8)
        if titles is not None:
            draw.text((left + 2, top + 2), titles[number][: tile // 8], fill="black", font=font)
        sheet.paste(image, (left, top + band))
    return sheet


def _within(image: Image.Image, tile: int) -> Image.Image:
    scale = tile / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def batch_picture(
    batch: Mapping[str, object], names: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> Image.Image:
    """Contact sheet of a batch as the model receives it; see `batch_pictures`."""
    found = batch_pictures(batch, names, mean, std)
    return contact_sheet([picture for picture, _ in found], [title for _, title in found])


def batch_pictures(
    batch: Mapping[str, object], names: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> list[tuple[Image.Image, str]]:
    """Pictures of a batch as the model receives it, padded images with the boxes of their targets, and their titles.

    Args:
        batch: `pixel_values` (B, 3, H, W), `pixel_mask` (B, H, W) and `labels`, as `collate_boxes` returns them.
        names: Class names, in the order of their numbers.
        mean: Mean of each channel that was subtracted.
        std: Standard deviation of each channel that was divided by.
    """
    pixels, mask, labels = batch["pixel_values"], batch["pixel_mask"], batch["labels"]
    assert isinstance(pixels, torch.Tensor)
    assert isinstance(mask, torch.Tensor)
    assert isinstance(labels, list)
    colors = pixels * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    colors = torch.where(mask[:, None].bool(), colors.clamp(0, 1), torch.tensor(0.5))
    found = []
    for image, seen, target in zip(colors, mask, labels, strict=True):
        height, width = int(seen[:, 0].sum()), int(seen[0].sum())
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        center, size = target["boxes"][:, :2], target["boxes"][:, 2:]
        corners = torch.cat([center - size / 2, center + size / 2], 1) * torch.tensor([width, height] * 2)
        numbers = target["class_labels"].tolist()
        texts = [names[number] for number in numbers]
        drawn = draw_boxes(picture, corners.numpy(), texts, [color_of(number) for number in numbers])
        found.append((drawn, f"{width} x {height}, {len(numbers)} boxes"))
    return found


__all__ = ["COLORS", "CROWD", "batch_picture", "batch_pictures", "color_of", "contact_sheet", "draw_boxes"]
