"""Details in a model card beyond a split's metrics: decisions on shifted images, and examples of decisions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ....data.labelled.dataset import LabelledImages, collate

LARGEST = 256  # limit on the number of images
DISTANCES = (1, 4, 8)  # pixels
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@torch.inference_mode()
def closer_look(
    model: nn.Module,
    images: LabelledImages,
    labels: Sequence[str],
    *,
    multi_label: bool = False,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures how decisions change when images move by a few pixels, and lists some decisions on single images.

    Each image is moved in one of eight directions, drawn from `seed`; the row or column at the edge is repeated to fill
    the gap. At most 256 images are used, spaced evenly over the split.

    Args:
        model: Classifier that returns `logits` (B, C) for `pixel_values`.
        images: Images with the evaluation transform; undecodable images are left out.
        labels: Class names, in label order, C of them.
        multi_label: Whether an image has any number of labels; a decision is then the set of all C yes-or-no answers.
        batch_size: Images per batch.
        seed: Seed of the directions.

    Returns:
        Dictionary with `shifts` and `examples`. `shifts` holds `images`, `accuracy`, and in `by_pixels` for each
        distance in pixels `accuracy`, `changed` (share of changed decisions) and `probability_change` (mean absolute
        change for the predicted labels). `examples` holds `image`, `true`, `predicted` and `probability` of the most
        confident right and the most confident wrong decisions.
    """
    rows = [number * len(images) // min(LARGEST, len(images)) for number in range(min(LARGEST, len(images)))]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(DIRECTIONS), (len(rows),), generator=generator).tolist()
    device, was_training = next(model.parameters()).device, model.training
    found: list[tuple[int, torch.Tensor, list[torch.Tensor]]] = []
    distances: list[int] = []
    model.eval()
    try:
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            batch = images.finish(collate([images[row] for row in part]))
            pixels = batch["pixel_values"]
            distances = [d for d in DISTANCES if d == 1 or d <= min(pixels.shape[-2:]) // 8]
            directions = [DIRECTIONS[number] for number in drawn[first : first + batch_size]]
            views = [pixels, *(shifted(pixels, directions, distance) for distance in distances)]
            logits = torch.stack([model(pixel_values=view.to(device)).logits.float().cpu() for view in views], dim=1)
            bad = batch["bad"].tolist() if "bad" in batch else [-1] * len(part)
            good = [place for place in range(len(part)) if bad[place] < 0]
            found += [(part[place], batch["labels"][place], list(logits[place])) for place in good]
    finally:
        model.train(was_training)
    if not found:
        return {"shifts": None, "examples": []}
    targets = torch.stack([target for _, target, _ in found])
    logits = torch.stack([torch.stack(views) for _, _, views in found])  # (N, views, C)
    probabilities = logits.sigmoid() if multi_label else logits.softmax(-1)
    decisions = logits > 0 if multi_label else functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
    truth = targets.bool() if multi_label else functional.one_hot(targets.long(), logits.shape[-1]).bool()
    right = (decisions == truth[:, None]).all(-1)  # (N, views)
    shifts = {
        "images": len(found),
        "accuracy": right[:, 0].float().mean().item(),
        "by_pixels": {
            str(distance): {
                "accuracy": right[:, view].float().mean().item(),
                "changed": (decisions[:, view] != decisions[:, 0]).any(-1).float().mean().item(),
                "probability_change": _change(probabilities, decisions[:, 0], view),
            }
            for view, distance in enumerate(distances, 1)
        },
    }
    names = [_name(images, row) for row, _, _ in found]
    return {"shifts": shifts, "examples": _examples(names, truth, decisions[:, 0], probabilities[:, 0], labels)}


def shifted(pixels: torch.Tensor, directions: Sequence[tuple[int, int]], distance: int) -> torch.Tensor:
    """Moves each image by `distance` pixels in its direction (down, right), repeating edges; (B, C, height, width)."""
    height, width = pixels.shape[-2:]
    padded = functional.pad(pixels, (distance,) * 4, mode="replicate")
    return torch.stack(
        [
            image[:, distance * (1 - down) :, distance * (1 - right) :][:, :height, :width]
            for image, (down, right) in zip(padded, directions, strict=True)
        ]
    )


def _change(probabilities: torch.Tensor, decided: torch.Tensor, view: int) -> float:
    if not decided.any():
        return 0.0
    return (probabilities[:, view] - probabilities[:, 0])[decided].abs().mean().item()


def _name(images: LabelledImages, row: int) -> str:
    """Returns the file's name without folders, or the row if there is no file."""
    file = images.file(row)
    return Path(file).name if file else f"row {row}"


def _examples(
    names: list[str],
    truth: torch.Tensor,
    decided: torch.Tensor,
    probabilities: torch.Tensor,
    labels: Sequence[str],
    count: int = 3,
) -> list[dict[str, Any]]:
    """Lists the most confident right decisions, then wrong ones; the probability is that of the whole decision."""
    right = (truth == decided).all(-1)
    if bool((decided.sum(-1) == 1).all()) and bool((truth.sum(-1) == 1).all()):
        sureness = probabilities.max(-1).values
    else:
        sureness = torch.where(decided, probabilities, 1 - probabilities).prod(-1)
    order = sureness.argsort(descending=True, stable=True).tolist()
    chosen = [[row for row in order if bool(right[row]) is kind][:count] for kind in (True, False)]
    return [
        {
            "image": names[row],
            "true": [labels[number] for number in truth[row].nonzero()[:, 0].tolist()],
            "predicted": [labels[number] for number in decided[row].nonzero()[:, 0].tolist()],
            "probability": round(sureness[row].item(), 4),
        }
        for row in (*chosen[0], *chosen[1])
    ]


__all__ = ["closer_look", "shifted"]
