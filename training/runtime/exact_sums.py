"""Sums that come out the same in any order: over batches of any size, and over one process or many."""

import torch

_UNIT = 2.0**-24


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Rounds values to multiples of 2^-24 (6e-8), float64; sums of these are exact in any order while below 2^29."""
    return (values.double() / _UNIT).round() * _UNIT


__all__ = ["rounded"]
