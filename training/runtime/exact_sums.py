"""Sums of numbers that come out the same in any order: over batches of any size, over one process or many."""

import torch

_UNIT = 2.0**-24


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Values as fp64 multiples of 2^-24 (6e-8); their sums are exact, and so free of order, while below 2^29."""
    return (values.double() / _UNIT).round() * _UNIT


__all__ = ["rounded"]
