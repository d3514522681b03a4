"""Private names of libraries that training needs, each with the reason and the versions that it was tried with.

A test looks for every one of them, so that a new version that lacks a name fails with a message and not in a run.
"""

import importlib
from typing import Any

from accelerate import Accelerator
from torch import nn

# Module, dotted name in it, and why it is needed. `tests/training/runtime/test_compat.py` looks for each.
PRIVATE_NAMES = (
    ("accelerate.state", "AcceleratorState._reset_state",
     "a second run in one process may have another precision; tried with accelerate 1.10 to 1.14"),
    ("accelerate.utils.fsdp_utils", "fsdp2_prepare_model",
     "the EMA is sharded as the model is, which `prepare` does for one model only; tried with accelerate 1.10 to 1.14"),
    ("transformers", "Trainer._load_from_checkpoint",
     "checkpoints hold no pickle and are put back by this package; tried with transformers 5.4 to 5.14"),
    ("transformers", "Trainer._load_optimizer_and_scheduler", "as `_load_from_checkpoint`"),
    ("transformers", "Trainer._load_scaler", "as `_load_from_checkpoint`"),
    ("transformers", "Trainer._load_rng_state", "as `_load_from_checkpoint`"),
    ("transformers", "PreTrainedModel._upload_modified_files",
     "`save_pretrained(push_to_hub=True)` uploads before it returns, and the code must be there by then; "
     "tried with transformers 5.4 to 5.14"),
)  # fmt: skip
# Where `Accelerator.prepare` keeps the forward of a model that it lets autocast; tried with accelerate 1.10 to 1.14.
ORIGINAL_FORWARD = "_original_forward"


def private_name(module: str, name: str) -> Any:
    """What a private name stands for.

    Raises:
        ImportError: The library has it no longer; the message says what it was for.
    """
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        why = next((reason for place, known, reason in PRIVATE_NAMES if (place, known) == (module, name)), "unknown")
        version = getattr(importlib.import_module(module.partition(".")[0]), "__version__", "unknown")
        raise ImportError(f"{module} {version} has no {name} any more, which is needed because {why}")
    return found


def forget_state() -> None:
    """Lets the next `Accelerator` of this process have other settings than the last."""
    private_name("accelerate.state", "AcceleratorState._reset_state")()


def shard_beside(accelerator: Accelerator, module: nn.Module) -> None:
    """Shards a module as `Accelerator.prepare` shards the model."""
    private_name("accelerate.utils.fsdp_utils", "fsdp2_prepare_model")(accelerator, module)


__all__ = ["ORIGINAL_FORWARD", "PRIVATE_NAMES", "forget_state", "private_name", "shard_beside"]
