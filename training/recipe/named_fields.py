"""Recipe fields that have their own argument in Python and their own command-line option."""

from typing import Any

NAMED_FIELDS = {
    "epochs": "training.epochs",
    "max_steps": "training.max_steps",
    "streaming": "data.streaming",
    "batch_size": "training.batch_size",
    "lr": "training.lr",
    "image_size": "model.image_size",
    "label_column": "data.label_column",
    "seed": "seed",
    "on_bad_image": "data.on_bad_image",
    "on_nonfinite": "training.on_nonfinite",
    "lora": "lora.rank",
    "keep_checkpoints": "training.keep_checkpoints",
    "class_weights": "training.class_weights",
    "sampler": "data.sampler",
}
LORA_RANK = 8  # rank that `lora=True` stands for


def named_values(**arguments: Any) -> dict[str, Any]:
    """Returns values by dotted field name; arguments that are None or False are left out.

    A batch size of "auto" is left out too: it keeps the recipe's.

    Args:
        **arguments: Values by argument name, as in `NAMED_FIELDS`.
    """
    given = {name: value for name, value in arguments.items() if value is not None and value is not False}
    if given.get("batch_size") == "auto":
        del given["batch_size"]
    if "lora" in given:
        given["lora"] = LORA_RANK
    return {NAMED_FIELDS[name]: value for name, value in given.items()}


__all__ = ["LORA_RANK", "NAMED_FIELDS", "named_values"]
