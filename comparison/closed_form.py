"""Cost of a vision transformer by arithmetic on its configuration: a check of the counter, and the crossover.

A layer with N tokens and D = hidden size needs 12 N D^2 + 2 N^2 D multiply-accumulates (with an MLP four times as wide
as D). The second term belongs to attention; its share is N / (6 D + N).
"""

from typing import Any


def closed_form_macs(config: Any, image_hw: tuple[int, int] | None = None) -> int:
    """Computes the multiply-accumulates for one image by the classifier of a `HubViTConfig` or `HubDeiTConfig`.

    Args:
        config: Configuration of the classifier.
        image_hw: (height, width) in pixels; None takes the configuration's.
    """
    (height, width), (patch_height, patch_width) = image_hw or config.image_hw, config.patch_hw
    patches = (height // patch_height) * (width // patch_width)
    size, tokens = config.hidden_size, patches + config.num_prefix_tokens
    embedding = patches * size * config.num_channels * patch_height * patch_width
    projections = 4 * tokens * size * size
    attention = 2 * tokens * tokens * size
    matrices = 3 if config.use_swiglu_ffn else 2
    mlp = matrices * tokens * size * config.mlp_size
    return int(
        embedding
        + config.num_hidden_layers * (projections + attention + mlp)
        + _pooling(config, tokens)
        + _head(config)
    )


def _pooling(config: Any, tokens: int) -> int:
    """Multiply-accumulates of attention pooling, whose one query attends to all tokens; 0 with other pools."""
    if config.pool != "map":
        return 0
    size = config.hidden_size
    return int(2 * (tokens + 1) * size * size + 2 * tokens * size + 2 * size * config.mlp_size)


def _head(config: Any) -> int:
    heads = 2 if getattr(config, "use_distillation_head", False) else 1
    width = config.hidden_size * (2 if config.pool == "cls+mean" else 1)
    return int(heads * width * config.num_labels)


def attention_share(tokens: int, hidden_size: int) -> float:
    """Returns the share of a layer's work that grows with the square of the number of tokens, in [0, 1)."""
    return tokens / (6 * hidden_size + tokens)


def crossover_pixels(hidden_size: int, patch_size: int) -> float:
    """Returns the side in pixels of a square image above which the quadratic term is the larger one: N = 6 D."""
    return float(patch_size * (6 * hidden_size) ** 0.5)


__all__ = ["attention_share", "closed_form_macs", "crossover_pixels"]
