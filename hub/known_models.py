"""Short names of pretrained models, such as "dinov2-s", with what is published about each.

Sources of the accuracies: timm's own evaluation of its weights on ImageNet's 50,000 validation images
(`results/results-imagenet.csv` of pytorch-image-models, August 2026); for DINOv2 the linear probes of its authors
(https://github.com/facebookresearch/dinov2). Parameters and sizes are those of the classifier or backbone as it is
stored. Operations and speeds are those of `benchmarks/known_models.py`, which prints them.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KnownModel:
    """Pretrained model with a short name.

    Args:
        name: Short name.
        source: Id on the Hub.
        parameters: Number of parameters in millions.
        image_size: Side of the images that it was trained on last, in pixels.
        licence: Licence of the weights.
        accuracy: Published top-1 accuracy on ImageNet in percent; None where none is published for these weights.
        note: What the model is, and what its accuracy is of.
        gmacs: Thousands of millions of multiplications with their additions, of matrix products and convolutions, for
            one image of that size.
        images_per_second: Speed for one image of that size at a time, in float32 on the CPU that
            `benchmarks/results/known_models.json` names; of use to compare the models with each other.
    """

    name: str
    source: str
    parameters: float
    image_size: int
    licence: str
    accuracy: float | None
    note: str
    gmacs: float
    images_per_second: float


_APACHE, _DINOV3 = "apache-2.0", "dinov3-license"
_PROBE = "self-supervised backbone; accuracy of a linear probe"
_IN21K, _DISTILLED = "ImageNet-21k, then ImageNet", "ImageNet, distilled from a CNN"

_BACKBONE = "self-supervised backbone"

_ROWS: tuple[tuple[str, str, float, int, str, float | None, str], ...] = (
    ("vit-ti-augreg", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", 5.72, 224, _APACHE, 75.45, _IN21K),
    ("vit-s-augreg", "vit_small_patch16_224.augreg_in21k_ft_in1k", 22.05, 224, _APACHE, 81.40, _IN21K),
    ("vit-b-augreg", "vit_base_patch16_224.augreg2_in21k_ft_in1k", 86.57, 224, _APACHE, 85.11, _IN21K),
    ("vit-l-augreg", "vit_large_patch16_224.augreg_in21k_ft_in1k", 304.33, 224, _APACHE, 85.86, _IN21K),
    ("deit-ti-distilled", "deit_tiny_distilled_patch16_224.fb_in1k", 5.91, 224, _APACHE, 74.54, _DISTILLED),
    ("deit-s-distilled", "deit_small_distilled_patch16_224.fb_in1k", 22.44, 224, _APACHE, 81.20, _DISTILLED),
    ("deit-b-distilled", "deit_base_distilled_patch16_224.fb_in1k", 87.34, 224, _APACHE, 83.38, _DISTILLED),
    ("deit3-s", "deit3_small_patch16_224.fb_in22k_ft_in1k", 22.06, 224, _APACHE, 83.08, _IN21K),
    ("deit3-b", "deit3_base_patch16_224.fb_in22k_ft_in1k", 86.59, 224, _APACHE, 85.73, _IN21K),
    ("deit3-l", "deit3_large_patch16_224.fb_in22k_ft_in1k", 304.37, 224, _APACHE, 86.99, _IN21K),
    ("dinov2-s", "vit_small_patch14_dinov2.lvd142m", 22.06, 518, _APACHE, 81.1, _PROBE),
    ("dinov2-b", "vit_base_patch14_dinov2.lvd142m", 86.58, 518, _APACHE, 84.5, _PROBE),
    ("dinov2-l", "vit_large_patch14_dinov2.lvd142m", 304.37, 518, _APACHE, 86.3, _PROBE),
    ("dinov2-s-reg", "vit_small_patch14_reg4_dinov2.lvd142m", 22.06, 518, _APACHE, 80.9, _PROBE),
    ("dinov2-b-reg", "vit_base_patch14_reg4_dinov2.lvd142m", 86.58, 518, _APACHE, 84.6, _PROBE),
    ("dinov3-s", "vit_small_patch16_dinov3.lvd1689m", 21.59, 256, _DINOV3, None, _BACKBONE),
    ("dinov3-b", "vit_base_patch16_dinov3.lvd1689m", 85.64, 256, _DINOV3, None, _BACKBONE),
    ("dinov3-l", "vit_large_patch16_dinov3.lvd1689m", 303.08, 256, _DINOV3, None, _BACKBONE),
)

_COSTS: dict[str, tuple[float, float]] = {
    "vit-ti-augreg": (1.25, 18.9),
    "vit-s-augreg": (4.6, 7.34),
    "vit-b-augreg": (17.56, 2.09),
    "vit-l-augreg": (61.55, 0.57),
    "deit-ti-distilled": (1.26, 20.9),
    "deit-s-distilled": (4.62, 7.5),
    "deit-b-distilled": (17.66, 2.12),
    "deit3-s": (4.6, 7.2),
    "deit3-b": (17.56, 2.14),
    "deit3-l": (61.55, 0.603),
    "dinov2-s": (46.7, 0.946),
    "dinov2-b": (151.57, 0.304),
    "dinov2-l": (506.8, 0.0805),
    "dinov2-s-reg": (46.88, 0.863),
    "dinov2-b-reg": (152.12, 0.304),
    "dinov3-s": (6.25, 5.6),
    "dinov3-b": (23.57, 1.61),
    "dinov3-l": (82.37, 0.497),
}

KNOWN_MODELS: dict[str, KnownModel] = {
    row[0]: KnownModel(row[0], f"timm/{row[1]}", *row[2:], *_COSTS[row[0]]) for row in _ROWS
}


def known_source(source: str | Path) -> str | Path:
    """Returns the Hub id behind a short name; any other source, or a path of that name that exists, as it is."""
    known = KNOWN_MODELS.get(str(source).lower())
    return source if known is None or Path(source).expanduser().exists() else known.source


def near_name(source: str) -> str:
    """Returns the end of a message on a model that does not exist: the short name that was meant, or where they are."""
    near = difflib.get_close_matches(source.lower(), KNOWN_MODELS, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else "; `vithub models` lists the short names"


__all__ = ["KNOWN_MODELS", "KnownModel", "known_source", "near_name"]
