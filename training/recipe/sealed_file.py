"""Text of a run's `recipe.yaml`: the recipe between a line with its checksum and a last line.

A part of a YAML file is often YAML too, and fields that are left out have defaults: without the last line a file that
was cut short would be read as another recipe.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

HEAD = "# recipe of a vithub run; SHA-256 of all that follows this line: "
END = "# end of the recipe"


def seal(text: str) -> str:
    """A recipe's text with the line before it and the line after it."""
    body = f"{text}{END}\n"
    return f"{HEAD}{_sum(body)}\n{body}"


def is_cut(text: str) -> bool:
    """Whether it begins as a sealed recipe and does not end as one."""
    return text.startswith(HEAD) and not text.rstrip().endswith(END)


# Fields of the section "training" that every version has written into a run's recipe.
_ALWAYS_WRITTEN = frozenset((
    "epochs", "batch_size", "accumulation", "lr", "min_lr", "warmup", "warmup_lr", "weight_decay", "betas", "epsilon",
    "clip_norm", "label_smoothing", "layer_decay", "precision", "early_stop", "publish", "keep_checkpoints",
))  # fmt: skip


def is_whole(text: str, content: Mapping[str, Any]) -> bool:
    """Whether a run wrote a recipe, all fields that its version had; a person states a few.

    Recipes of old runs, and those that are copied from a model card, have no seal.

    Args:
        text: The file's.
        content: The plain data in it.
    """
    section = content.get("training")
    return text.startswith(HEAD) or (isinstance(section, Mapping) and section.keys() >= _ALWAYS_WRITTEN)


def is_edited(text: str) -> bool:
    """Whether it is a sealed recipe with another content than was written; recipes without a seal are not."""
    if not text.startswith(HEAD):
        return False
    first, _, body = text.partition("\n")
    return first.removeprefix(HEAD) != _sum(body)


def unseal(text: str) -> str:
    """A recipe's text as a person reads it."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith((HEAD, END)))


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


__all__ = ["END", "HEAD", "is_cut", "is_edited", "is_whole", "seal", "unseal"]
