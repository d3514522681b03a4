"""Hostile values of every configuration field; what is accepted must build, compute, be saved and load again."""

from collections.abc import Iterator
from functools import partial
from inspect import get_annotations
from typing import Any

from . import stock
from .case import Case, Place

AREA = "configuration values"
NAN, INFINITY = float("nan"), float("inf")
VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "empty text": "",
    "text": "abc",
    "not a number": NAN,
    "infinity": INFINITY,
    "-1": -1,
    "0": 0,
    "0.5": 0.5,
    "10**7": 10**7,
    "1e308": 1e308,
    "empty list": [],
    "three numbers": [1, 2, 3],
    "a pair with 0": (0, 4),
    "list of texts": ["a"],
    "object": {"a": 1},
}
# Fields of transformers that both have.
INHERITED = ("id2label", "label2id", "num_labels", "problem_type")
LABELS: dict[str, Any] = {
    "a gap": {0: "a", 2: "b"},
    "names twice": {0: "a", 1: "a"},
    "a list": ["a", "b"],
    "numbers as names": {0: 0, 1: 1},
    "None as a name": {0: None, 1: "b"},
    "a key that is no number": {"x": "a"},
    "a key of -1": {-1: "a"},
    "nested": {0: {"a": 1}},
}
_VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8, "num_labels": 3,
}  # fmt: skip
SHORT_FIELDS = {"hidden_size", "layer_norm_eps", "num_queries", "distillation", "encoder_attention_heads"}


def _classes() -> dict[str, tuple[type, type, dict[str, Any]]]:
    import vithub

    return {
        "vit": (vithub.HubViTConfig, vithub.HubViTForImageClassification, _VIT),
        "deit": (vithub.HubDeiTConfig, vithub.HubDeiTForImageClassification, _VIT),
        "detr": (vithub.HubDetrConfig, vithub.HubDetrForObjectDetection, stock.DETECTOR),
    }


def _act(kind: str, field: str, value: Any, place: Place) -> str | None:
    import torch

    config_class, model_class, base = _classes()[kind]
    given = {name: v for name, v in base.items() if not (name == "num_labels" and field in INHERITED)}
    config = config_class(**{**given, field: value})
    torch.manual_seed(0)
    model = model_class(config).eval()
    size = 64 if kind == "detr" else getattr(config, "image_hw", (32, 32))
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.linspace(-1, 1, config_channels(config) * height * width).reshape(1, -1, height, width)
    with torch.inference_mode():
        before = model(pixel_values=pixels).logits
    if not before.isfinite().all():
        return "the model gives values that are not finite"
    model.save_pretrained(place.folder / "model")
    again = model_class.from_pretrained(place.folder / "model").eval()
    with torch.inference_mode():
        after = again(pixel_values=pixels).logits
    if not torch.equal(before, after):
        return "the model saved and loaded answers otherwise"
    return None


def config_channels(config: Any) -> int:
    """Channels of the images that a model takes."""
    channels = getattr(config, "num_channels", 3)
    return channels if isinstance(channels, int) else 3


def cases(seed: int) -> Iterator[Case]:
    """Every field of the three configurations with every value."""
    done: set[str] = set()
    for kind, (config_class, _, _) in _classes().items():
        own = [name for cls in config_class.__mro__ if "vithub" in cls.__module__
               for name in get_annotations(cls)]  # fmt: skip
        described = {*config_class.__dataclass_fields__} - {"sub_configs", "attribute_map", "model_type"}
        fields = [name for name in dict.fromkeys(own) if name in described and not name.startswith(("_", "base_model"))]
        fields = [name for name in fields if kind != "deit" or name not in done]
        done |= set(fields)
        for field in [*fields, *(INHERITED if kind != "deit" else ())]:
            values = VALUES | (LABELS if field in ("id2label", "label2id") else {})
            for what, value in values.items():
                call = f"{config_class.__name__}({field}={str(value)[:40]!r} as {type(value).__name__})"
                short = field in SHORT_FIELDS and what in ("not a number", "10**7", "text", "True")
                short |= (field, what) == ("num_labels", "None")
                labels = ("id2label", "label2id", "num_labels") if field in INHERITED else ()
                yield Case(
                    AREA, f"{kind}.{field} = {what}", call, partial(_act, kind, field, value),
                    right=lambda answer: answer, names=(field, *labels), seconds=5, short=short,
                )  # fmt: skip


__all__ = ["cases"]
