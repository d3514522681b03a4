"""Format of a run's `recipe.yaml`: the recipe between a first line with its checksum and a last line.

Part of a YAML file is often valid YAML too, and omitted fields have defaults: without the last line, a truncated file
would be read as another recipe.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

HEAD = "# recipe of a vithub run; SHA-256 of all that follows this line: "
END = "# end of the recipe"


def seal(text: str) -> str:
    """Adds the checksum line and the last line to a recipe's text."""
    body = f"{text}{END}\n"
    return f"{HEAD}{_sum(body)}\n{body}"


def is_cut(text: str) -> bool:
    """Whether a text begins as a sealed recipe and does not end as one."""
    return text.startswith(HEAD) and not text.rstrip().endswith(END)


# Fields of the section "training" that every version has written into a run's recipe.
_ALWAYS_WRITTEN = frozenset((
    "epochs", "batch_size", "accumulation", "lr", "min_lr", "warmup", "warmup_lr", "weight_decay", "betas", "epsilon",
    "clip_norm", "label_smoothing", "layer_decay", "precision", "early_stop", "publish", "keep_checkpoints",
))  # fmt: skip


def is_whole(text: str, content: Mapping[str, Any]) -> bool:
    """Whether a run wrote a recipe, with all fields that its version had; a person states only a few.

    Recipes of old runs, and recipes copied from a model card, have no seal.

    Args:
        text: Text of the file.
        content: Plain data in the file.
    """
    section = content.get("training")
    return text.startswith(HEAD) or (isinstance(section, Mapping) and section.keys() >= _ALWAYS_WRITTEN)


def is_edited(text: str) -> bool:
    """Whether a text is a sealed recipe that was changed after it was written; False for recipes without a seal."""
    if not text.startswith(HEAD):
        return False
    first, _, body = text.partition("\n")
    return first.removeprefix(HEAD) != _sum(body)


def unseal(text: str) -> str:
    """Returns a recipe's text without the lines of the seal."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith((HEAD, END)))


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


__all__ = ["END", "HEAD", "is_cut", "is_edited", "is_whole", "seal", "unseal"]
