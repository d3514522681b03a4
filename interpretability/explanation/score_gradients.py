"""Gradients of a score, without underflow in half precision."""

from collections.abc import Sequence

import torch

# Gradients of attention weights are often below 6e-8, the smallest number of fp16, and would be zero there.
_FP16_SCALE = 2.0**12


def score_gradients(score: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of a scalar with respect to each tensor, in fp32; zero if the score does not depend on a tensor.

    In fp16 the score is scaled up before, and the gradients are scaled back afterwards; gradients that overflow become
    the largest finite number.
    """
    scale = _FP16_SCALE if score.dtype == torch.float16 else 1.0
    gradients = torch.autograd.grad(score * scale, list(tensors), materialize_grads=True)
    return [torch.nan_to_num(gradient.float()) / scale if scale != 1 else gradient.float() for gradient in gradients]


__all__ = ["score_gradients"]
