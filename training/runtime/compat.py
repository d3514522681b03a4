"""Private names of libraries that training needs, each with the reason and the versions tested.

A test looks up every name, so that a new version that lacks one fails there with a message and not during a run.
"""

import importlib
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

# Module, dotted name in it, and the reason. `tests/training/runtime/test_compat.py` looks up each.
PRIVATE_NAMES = (
    ("accelerate.state", "AcceleratorState._reset_state",
     "a second run in one process may have another precision; tried with accelerate 1.15.0"),
    ("torch.utils.data.dataloader", "_MultiProcessingDataLoaderIter._shutdown_workers",
     "kept loading processes are ended at the end of a run, for which torch has no public call; torch 2.8 to 2.14"),
    ("accelerate.utils.fsdp_utils", "fsdp2_prepare_model",
     "the EMA is sharded as the model is, which `prepare` does for one model only; tried with accelerate 1.15.0"),
    ("transformers", "Trainer._load_from_checkpoint",
     "checkpoints hold no pickle and are put back by this package; tried with transformers 5.23.0"),
    ("transformers", "Trainer._load_optimizer_and_scheduler", "as `_load_from_checkpoint`"),
    ("transformers", "Trainer._load_scaler", "as `_load_from_checkpoint`"),
    ("transformers", "Trainer._load_rng_state", "as `_load_from_checkpoint`"),
    ("transformers", "PreTrainedModel._upload_modified_files",
     "`save_pretrained(push_to_hub=True)` uploads before it returns, and the code must be there by then; "
     "tried with transformers 5.23.0"),
)  # fmt: skip
# Attribute in which `Accelerator.prepare` keeps the forward of an autocast model; tried with accelerate 1.15.0.
ORIGINAL_FORWARD = "_original_forward"
# Attribute in which `nn.Module.compile` keeps the compiled call, for which torch has no way back; torch 2.8 to 2.14.
COMPILED_CALL = "_compiled_call_impl"


def private_name(module: str, name: str) -> Any:
    """Looks up a private name of a library.

    Raises:
        ImportError: The library no longer has the name; the message says what it was needed for.
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
    """Allows the next `Accelerator` of this process to have other settings than the last."""
    private_name("accelerate.state", "AcceleratorState._reset_state")()


def shard_beside(accelerator: Accelerator, module: nn.Module) -> None:
    """Shards a module as `Accelerator.prepare` shards the model."""
    private_name("accelerate.utils.fsdp_utils", "fsdp2_prepare_model")(accelerator, module)


def end_processes(loader: DataLoader[Any]) -> None:
    """Ends the loading processes of a data loader that keeps them, and waits for them; does nothing without any."""
    kept = getattr(loader, "_iterator", None)  # where torch 2.8 to 2.14 keeps the iterator with the processes
    if kept is not None:
        private_name("torch.utils.data.dataloader", "_MultiProcessingDataLoaderIter._shutdown_workers")(kept)
        loader._iterator = None


__all__ = [
    "COMPILED_CALL",
    "ORIGINAL_FORWARD",
    "PRIVATE_NAMES",
    "end_processes",
    "forget_state",
    "private_name",
    "shard_beside",
]
