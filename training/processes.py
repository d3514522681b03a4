"""The processes of a run, as Accelerate sees them: one, or those that a launcher started."""

from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env


def on_cpu() -> bool:
    """Whether the CPU computes: there is nothing else, or it was asked for (`accelerate launch --cpu`)."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def process_state() -> PartialState:
    """Number of processes and which one this is; joins them on the first call, over gloo on CPUs."""
    return PartialState(cpu=on_cpu())


def new_accelerator(**options: Any) -> Accelerator:
    """An `Accelerator`; another run in this process may have had another precision."""
    process_state()
    AcceleratorState._reset_state()
    return Accelerator(cpu=on_cpu(), **options)


__all__ = ["new_accelerator", "on_cpu", "process_state"]
