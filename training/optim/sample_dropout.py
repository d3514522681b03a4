"""Dropout drawn separately for each sample, so that it does not depend on how a batch is divided.

torch draws one mask for a whole tensor from the state of one generator: a batch of 8 in two parts of 4, or on two
processes, gets other masks than the undivided batch. Here a mask follows from the sample's seed, the number of the call
in the forward pass and the place in the sample alone.

Masks of layers are a hash of these numbers, computed on the device of the input with the same bits on every device.
Attention is computed sample by sample with torch's own dropout, seeded each time, as no other way leaves the fused
kernels, which never store the weights, in use.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LANES = 2  # a hash of 32 bits decides on two values: rates are met to 1 / 65536


class SampleDropout(TorchFunctionMode):
    """Context in which the dropout of each sample, also inside fused attention, is drawn from the sample's own seed.

    A tensor is per sample if its first dimension is the number of samples or a multiple of it, such as samples x heads.
    Other tensors are left to torch; no model here applies dropout to them. A backward pass that recomputes activations
    would draw other masks, so do not use it with activation checkpointing.

    Args:
        seeds: One seed per sample of the current batch part, below 2^64.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__()
        self.seeds = np.array(seeds, dtype=np.uint64)
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces torch's two functions that apply dropout; calls all others unchanged."""
        kwargs = kwargs or {}
        if func is functional.dropout:
            return self._dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention and _rate(args, kwargs):
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _keys(self) -> np.ndarray:
        """Two keys of each sample for the next call, (2, samples) uint32."""
        self.calls += 1
        mixed = _mixed(_mixed(self.seeds) + np.uint64(self.calls))
        return np.stack([mixed & np.uint64(0xFFFFFFFF), mixed >> np.uint64(32)]).astype(np.uint32)

    def _dropout(self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: A002
        samples = len(self.seeds)
        if not training or p == 0 or input.shape[0] == 0 or input.shape[0] % samples:
            return functional.dropout(input, p, training, inplace)
        kept = kept_values(self._keys(), input.numel() // samples, p, input.device).view(input.shape)
        scaled = kept.to(input.dtype) / (1 - p)
        return input.mul_(scaled) if inplace else input * scaled

    def _attention(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Computes attention (B, H, N, K) for each sample under its own seed, then leaves torch's generator reseeded.

        The arguments are those of torch's function; a mask may be shared by the samples.
        """
        samples = len(self.seeds)
        if len(query) != samples:
            return functional.scaled_dot_product_attention(query, key, value, *args, **kwargs)
        keys = self._keys().astype(np.uint64)
        seeds = [int(low | high << np.uint64(32)) for low, high in zip(keys[0], keys[1], strict=True)]
        mask = kwargs.pop("attn_mask", None) if not args else args[0]
        parts = []
        for number, seed in enumerate(seeds):
            _reseed(query.device, seed)
            own = mask if mask is None or mask.ndim < 4 or len(mask) == 1 else mask[number : number + 1]
            one, keys_of, values = (tensor[number : number + 1] for tensor in (query, key, value))
            parts.append(functional.scaled_dot_product_attention(one, keys_of, values, own, *args[1:], **kwargs))
        return torch.cat(parts)


def kept_values(keys: np.ndarray, size: int, rate: float, device: torch.device) -> torch.Tensor:
    """Draws which values dropout keeps: a hash of a sample's keys and of the value's place, the same on every device.

    The hash has two rounds of multiplications and shifts (https://github.com/skeeto/hash-prospector, "lowbias32", and
    the last steps of MurmurHash3); products of 32-bit integers wrap around.

    Args:
        keys: Two keys of each sample, (2, samples) uint32.
        size: Number of values of a sample, below 2^32.
        rate: Probability to drop a value, in (0, 1), met to 1 / 65536.
        device: Device of the result.

    Returns:
        Whether each value is kept, (samples, size) bool.
    """
    first, second = torch.from_numpy(keys.view(np.int32)).to(device, non_blocking=True)[..., None]  # (samples, 1) each
    words = torch.arange(-(-size // _LANES), dtype=torch.int32, device=device) ^ first  # (samples, size / 2)
    _shift_in(words, 16).mul_(0x7FEB352D)
    _shift_in(words, 15).mul_(0x846CA68B - (1 << 32))
    _shift_in(words, 16).add_(second)
    _shift_in(words.mul_(0x85EBCA6B - (1 << 32)), 13).mul_(0xC2B2AE35 - (1 << 32))
    halves = _shift_in(words, 16).view(torch.int16)[:, :size]
    return halves >= min(round(rate * 65536), 65535) - 32768


def _shift_in(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Computes words ^= words >> bits in place, with zeros shifted in."""
    return words.bitwise_xor_((words >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Mixes 64-bit integers so that near ones differ in all bits (SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _reseed(device: torch.device, seed: int) -> None:
    """Seeds the generator of a device, from which the kernels of attention draw."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "meta":
        torch.get_device_module(device).manual_seed(seed)


def _rate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    return float(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0))


def drops_activations(model: nn.Module) -> bool:
    """Whether a model has dropout, in a layer or on attention weights."""
    modules = list(model.modules())
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in modules)
    return layers or any(isinstance(rate := getattr(m, "dropout", 0.0), float) and rate > 0 for m in modules)


__all__ = ["SampleDropout", "drops_activations", "kept_values"]
