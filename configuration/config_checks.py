"""Checks shared by the configurations. Each raises a `ValueError` that names the field and the value got."""

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

# Largest sizes that a configuration may ask for, so that a typing error is refused before memory is allocated.
# The largest vision transformer published, ViT-22B (https://arxiv.org/abs/2302.05442), has 48 layers of width 6144 and
# an MLP of 24576; DeepNet (https://arxiv.org/abs/2203.00555) trained 1,000 layers. Registers are 4 in their paper.
# ImageNet-21k has 21,843 classes. 2 ** 18 tokens are those of an image of 8192 x 8192 pixels in patches of 16.
_LARGEST = {
    "hidden_size": 32_768,
    "d_model": 32_768,
    "num_hidden_layers": 1_024,
    "encoder_layers": 1_024,
    "decoder_layers": 1_024,
    "intermediate_size": 262_144,
    "encoder_ffn_dim": 262_144,
    "decoder_ffn_dim": 262_144,
    "num_register_tokens": 4_096,
    "num_queries": 65_536,
    "denoising_queries": 65_536,
    "num_channels": 4_096,
}
MOST_LABELS = 1_000_000
MOST_PATCHES = 2**18
LARGEST_NUMBER = 1e9  # for any constant; a few orders of magnitude more overflow weights and products in fp32
LARGEST_SIDE = 65_536  # pixels: the most that JPEG can store is 65,535


def check_largest(config: Any, *names: str) -> None:
    """Checks that each named integer field is at most its limit in `_LARGEST`."""
    for name in names:
        if (value := getattr(config, name)) > _LARGEST[name]:
            raise ValueError(f"`{name}` must be at most {_LARGEST[name]}, got {value!r}")


def check_number_of_labels(given: Mapping[str, Any]) -> None:
    """Checks that `num_labels` is a number of classes, before transformers builds a dictionary of that size."""
    value = given.get("num_labels", 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_LABELS:
        raise ValueError(f"`num_labels` must be a whole number of at most {MOST_LABELS}, got {value!r}")


def check_label_maps(config: Any) -> None:
    """Checks that `id2label` maps integers to strings and `label2id` the reverse, before transformers reads them."""
    for name, kinds in (("id2label", "numbers to texts"), ("label2id", "texts to numbers")):
        given = getattr(config, name)
        if given is None:
            continue
        pairs = given.items() if isinstance(given, Mapping) else [(None, None)]
        if not all(
            _is_number(pair[name == "label2id"]) and isinstance(pair[name == "id2label"], str) for pair in pairs
        ):
            raise ValueError(f"`{name}` must map {kinds}, got {given!r}")


def _is_number(value: Any) -> bool:
    """Whether `value` is an integer, or a string of digits, which is how JSON stores integer keys."""
    digits = value.removeprefix("-").isdecimal() if isinstance(value, str) else False
    return digits or (isinstance(value, Integral) and not isinstance(value, bool))


def check_number_of_patches(image_hw: tuple[int, int], patch_hw: tuple[int, int]) -> None:
    """Checks that the sides of `image_size` are at most 65,536 pixels and that it has at most 2^18 patches."""
    if max(image_hw) > LARGEST_SIDE:
        raise ValueError(f"`image_size` must be at most {LARGEST_SIDE} pixels per side, got {image_hw}")
    count = (image_hw[0] // patch_hw[0]) * (image_hw[1] // patch_hw[1])
    if count > MOST_PATCHES:
        raise ValueError(
            f"`image_size` {image_hw} in patches of `patch_size` {patch_hw} makes {count} tokens; "
            f"at most {MOST_PATCHES} are possible"
        )


def nearest_sizes(image_hw: tuple[int, int], patch_hw: tuple[int, int]) -> str:
    """Names the image sizes in whole patches next below and above one that is not, such as "98 or 112"."""
    pairs = tuple(zip(image_hw, patch_hw, strict=True))
    below = tuple(max(side // patch, 1) * patch for side, patch in pairs)
    above = tuple(-(-side // patch) * patch for side, patch in pairs)
    return " or ".join(str(size[0] if size[0] == size[1] else size) for size in dict.fromkeys((below, above)))


def check_positive_int(config: Any, *names: str, minimum: int = 1) -> None:
    """Checks that each named field is an integer of at least `minimum`."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"`{name}` must be a whole number of at least {minimum}, got {value!r}")


def check_fraction(config: Any, *names: str) -> None:
    """Checks that each named field is a number in [0, 1)."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {value!r}")


def check_positive_float(config: Any, *names: str) -> None:
    """Checks that each named field is a number above 0 and at most 1e9, so that results in fp32 stay finite."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= LARGEST_NUMBER:
            raise ValueError(f"`{name}` must be a number above 0 and at most {LARGEST_NUMBER:g}, got {value!r}")


def check_bool(config: Any, *names: str) -> None:
    """Checks that each named field is True or False, and not a number or string that is merely truthy."""
    for name in names:
        if not isinstance(value := getattr(config, name), bool):
            raise ValueError(f"`{name}` must be True or False, got {value!r}")


def check_choice(config: Any, name: str, choices: Collection[str]) -> None:
    """Checks that the named field is one of `choices`."""
    if (value := getattr(config, name)) not in choices:
        raise ValueError(f"`{name}` must be one of {sorted(choices)}, got {value!r}")


def check_labels(config: Any) -> None:
    """Checks that the keys of `id2label` are 0..C-1, that its names are distinct, and that `label2id` is its inverse.

    A missing `label2id` is set to the inverse. Numbers stored as strings are converted: JSON stores keys so, and the
    example scripts of transformers write both so.
    """
    id2label = config.id2label
    if not id2label:
        raise ValueError(f"`num_labels` must be at least 1, got {id2label!r} as `id2label`")
    if any(isinstance(key, str) and key.isdecimal() for key in id2label):
        id2label = config.id2label = {int(key) if str(key).isdecimal() else key: v for key, v in id2label.items()}
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(f"`id2label` must map 0..{len(id2label) - 1} to names, got the keys {sorted(id2label)}")
    inverse = {name: index for index, name in id2label.items()}
    if len(inverse) != len(id2label):
        names = list(id2label.values())
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"`id2label` names must be distinct, got {repeated} more than once")
    if config.label2id is None or len(config.label2id) == 0:
        config.label2id = inverse
    elif {str(name): int(index) for name, index in config.label2id.items()} != inverse:
        raise ValueError(f"`label2id` must be the inverse of `id2label`, got {config.label2id!r} for {id2label!r}")
    else:
        config.label2id = inverse


def as_pair(name: str, value: Any) -> tuple[int, int]:
    """Converts an integer, or a pair (height, width), to (height, width); both are checked to be at least 1."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
        raise ValueError(f"`{name}` must be a whole number above 0 or a pair (height, width) of them, got {value!r}")
    return pair[0], pair[1]


__all__ = [
    "LARGEST_SIDE",
    "MOST_LABELS",
    "MOST_PATCHES",
    "as_pair",
    "check_bool",
    "check_choice",
    "check_fraction",
    "check_label_maps",
    "check_labels",
    "check_largest",
    "check_number_of_labels",
    "check_number_of_patches",
    "check_positive_float",
    "check_positive_int",
    "nearest_sizes",
]
