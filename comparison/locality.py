"""Locality of a network: attention distance of each layer, and the effective receptive field of its features.

Both are also given for the same network with random weights: what a network of this shape does before training is not
something that it learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..data.seeding import derived_seed, seeded
from ..interpretability.analysis.attention_distance import mean_attention_distance, uniform_attention_distance
from ..interpretability.capture.attention_maps import attention_maps
from ..interpretability.capture.subject import ExplanationError, make_subject
from ..training.runtime.progress import QuietReporter, Reporter
from .contestants import Contestant
from .feature_maps import feature_map
from .image_sample import ImageSample, canvases
from .measurement import Measurement, Section, bootstrap_interval
from .receptive_field import effective_receptive_field

PROTOCOLS = {
    "locality/attention-1": (
        "Mean distance in pixels between a patch and those that it attends to, prefix tokens left out and rows "
        "renormalised (Dosovitskiy et al. 2021, figure 7); mean over heads, interval over images."
    ),
    "locality/uniform-1": "The same of attention that is equal everywhere: the mean distance between two patches.",
    "locality/field-1": (
        "Effective receptive field (Luo et al. 2016) of the middle cell of the last feature map, by the gradient of "
        "one random direction, mean over images: pixels within which half of it lies, and root mean square distance."
    ),
}
MAP_SIDE = 56


@dataclass(frozen=True)
class LocalitySettings:
    """Settings of the locality measurement.

    Args:
        images: Number of images for attention distances.
        field_images: Number of images for receptive fields.
    """

    images: int = 16
    field_images: int = 8


def measure_locality(
    contestants: Sequence[Contestant], sample: ImageSample, settings: LocalitySettings, seed: int = 0,
    reporter: Reporter | None = None,
) -> Section:  # fmt: skip
    """Measures the section "locality", in float32."""
    reporter = reporter or QuietReporter()
    section = Section("locality", PROTOCOLS)
    reporter.start("locality", 4 * len(contestants))
    for one in contestants:
        images = canvases(one, sample.images[: max(settings.images, settings.field_images)], one.image_hw)
        with seeded(derived_seed(seed)):
            control = one.build(one.image_hw).eval()
        for weights, model in (("trained", one.model.cpu().float()), ("random", control)):
            attentive = one.family in ("ViT", "hybrid")
            if attentive:
                _attention(section, one.name, model, images[: settings.images], weights, seed)
            reporter.advance()
            _field(section, one.name, model, images[: settings.field_images], weights, seed)
            reporter.advance()
    reporter.stop()
    section.notes.append(
        f"{min(settings.images, len(sample.images))} images for attention, "
        f"{min(settings.field_images, len(sample.images))} for receptive fields, of {sample.name}, split {sample.split}"
    )
    return section


def attention_distances(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Computes the mean attention distance per image, layer and head, and that of uniform attention, in pixels.

    Returns:
        Distances, float64 (B, layers, heads), and the distance of uniform attention.

    Raises:
        ExplanationError: The model does not attend over all patches of an image.
    """
    subject = make_subject(model, images[:1])
    if subject.architecture.kind != "vit":
        raise ExplanationError(f"{type(model).__name__} does not attend over all patches of an image")
    rows, columns = subject.grid
    patch_hw = (images.shape[2] // rows, images.shape[3] // columns)
    prefix = len(subject.architecture.prefix)
    found = []
    for part in torch.split(images, 8):
        layers = [
            mean_attention_distance(layer, (rows, columns), patch_hw, prefix) for layer in attention_maps(model, part)
        ]
        found.append(torch.stack(layers, dim=1))
    return torch.cat(found), uniform_attention_distance((rows, columns), patch_hw)


def _attention(section: Section, name: str, model: nn.Module, images: torch.Tensor, weights: str, seed: int) -> None:
    add = section.measurements.append
    try:
        distances, uniform = attention_distances(model, images)
    except (ExplanationError, ValueError) as error:
        note = f"not measured: {error}"
        add(Measurement(name, "attention distance", None, "px", "locality/attention-1", seed, note=note))
        return
    for layer in range(distances.shape[1]):
        per_image = distances[:, layer].mean(dim=1).numpy()
        at: dict[str, Any] = {"weights": weights, "layer": layer, "images": len(images)}
        interval = bootstrap_interval(per_image, seed)
        add(
            Measurement(
                name, "attention distance", float(per_image.mean()), "px", "locality/attention-1", seed, interval, at
            )
        )
    if weights == "trained":
        add(Measurement(name, "uniform attention distance", uniform, "px", "locality/uniform-1"))
        heads = distances.mean(dim=0)
        section.maps[f"{name}: heads"] = [[round(value, 3) for value in row] for row in heads.tolist()]


def _field(section: Section, name: str, model: nn.Module, images: torch.Tensor, weights: str, seed: int) -> None:
    add = section.measurements.append
    try:
        fields = [effective_receptive_field(lambda pixels: feature_map(model, pixels), image[None]) for image in images]
    except ValueError as error:
        note = f"not measured: {error}"
        add(Measurement(name, "receptive field radius", None, "px", "locality/field-1", seed, note=note))
        return
    at = {"weights": weights, "images": len(images)}
    for quantity, values in (
        ("receptive field radius", [field.radius for field in fields]),
        ("receptive field rms", [field.rms for field in fields]),
    ):
        mean, interval = sum(values) / len(values), bootstrap_interval(values, seed)
        add(Measurement(name, quantity, mean, "px", "locality/field-1", seed, interval, dict(at)))
    influence = torch.stack([field.influence for field in fields]).mean(0)[None, None]
    side = min(MAP_SIDE, *influence.shape[2:])
    small = functional.adaptive_avg_pool2d(influence, side)[0, 0]
    rows = (small / small.max()).double().tolist()
    section.maps[f"{name}: field, {weights}"] = [[round(value, 5) for value in row] for row in rows]


__all__ = ["PROTOCOLS", "LocalitySettings", "attention_distances", "measure_locality"]
