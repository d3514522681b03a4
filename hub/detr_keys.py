"""How the tensors of a DETR are called: here, in transformers, and by its authors."""

import re

# timm and torchvision name a ResNet's parts one way, transformers another. Theirs on the left.
_RESNET = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"{_block(m)}.layer.{int(m[3]) - 1}.convolution."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"{_block(m)}.layer.{int(m[3]) - 1}.normalization."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"{_block(m)}.shortcut.convolution."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"{_block(m)}.shortcut.normalization."),
)


def _block(match: re.Match[str]) -> str:
    return f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}"


def resnet_from_timm(name: str) -> str:
    """The name in transformers' ResNet of a tensor of timm's or torchvision's; others are returned as they are."""
    for pattern, replacement in _RESNET:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


__all__ = ["resnet_from_timm"]
