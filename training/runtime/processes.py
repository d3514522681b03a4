"""Processes of a run as Accelerate sees them: a single one, or those that a launcher started."""

import warnings
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import nn

from .compat import forget_state, shard_beside
from .lost_machines import watch_machines


def on_cpu() -> bool:
    """Whether the CPU computes: it is the only device, or was requested (`accelerate launch --cpu`)."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def on_cuda() -> bool:
    """Whether a CUDA device computes, rather than merely exists."""
    return not on_cpu() and torch.cuda.is_available()


def process_state() -> PartialState:
    """Returns the number of processes and the index of this one; the first call joins them, over gloo on CPUs."""
    state = PartialState(cpu=on_cpu())
    watch_machines(state)
    return state


def new_accelerator(**options: Any) -> Accelerator:
    """Makes an `Accelerator`, even if an earlier run in this process had another precision."""
    process_state()
    forget_state()
    accelerator = Accelerator(cpu=on_cpu(), **options)
    shard_on_cpus(accelerator)
    accelerator.sync_gradients = True  # shared by all; a run that failed within a step has left it off
    return accelerator


def shard_on_cpus(accelerator: Accelerator) -> None:
    """Makes processes that compute on CPUs shard the model too, if the launch asks for FSDP2.

    Accelerate would silently copy the whole model to each of them, although torch shards over gloo as well.
    """
    state = accelerator.state
    asked = parse_flag_from_env("ACCELERATE_USE_FSDP")
    if asked and on_cpu() and state.distributed_type in (DistributedType.MULTI_CPU, DistributedType.FSDP):
        # In both: each new `AcceleratorState`, as an optimizer makes one, takes its entries from the other.
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        # The patch projection returns a view, which nothing here changes in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)


def shard(module: nn.Module, accelerator: Accelerator) -> None:
    """Shards a module as `accelerator.prepare` shards the model; does nothing if models are not sharded."""
    if accelerator.distributed_type == DistributedType.FSDP:
        shard_beside(accelerator, module)


__all__ = ["new_accelerator", "on_cpu", "on_cuda", "process_state", "shard", "shard_on_cpus"]
