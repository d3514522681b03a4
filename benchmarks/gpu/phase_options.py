"""Options of the recipe on the card: half precision, compiling, a teacher, recomputed layers, adapters."""

from typing import Any

import torch
from check import HALF_TOLERANCE, LOSS_TOLERANCE, Check, Record, largest_relative, not_available
from check import verdict as judged
from phase_training import job, plain_run
from torch import nn
from train_once import train


def _beside(check: Check, name: str, values: dict[str, Any], tolerance: float) -> Record:
    """Losses with an option against those without it."""
    plain = plain_run(check)
    changed = train(job(check, name, values=values))
    difference = largest_relative(changed["losses"], plain["losses"])
    figures = {"losses_differ": difference, "tolerance": tolerance, "precision": changed["precision"]}
    return judged(difference <= tolerance, **figures, speed=round(changed["entry"]["images_per_second"], 1))


def bf16_follows_fp32(check: Check) -> Record:
    """Losses in bf16 against fp32."""
    return _beside(check, "bf16", {"training.precision": "bf16"}, HALF_TOLERANCE)


def fp16_follows_fp32(check: Check) -> Record:
    """Losses in fp16, with its gradient scaler, against fp32."""
    if not check.gpu:
        return not_available("fp16 with its gradient scaler is for GPUs")
    # The scaler begins so high that first steps may be left out: losses follow within what a few steps move.
    return _beside(check, "fp16", {"training.precision": "fp16"}, 2 * HALF_TOLERANCE)


def compiled_follows_eager(check: Check) -> Record:
    """Losses of a compiled model against the same without compiling."""
    if check.tiny:
        return not_available("compiling takes longer than all of the tiny form")
    return _beside(check, "compile", {"model.compile": True}, LOSS_TOLERANCE)


def recomputed_layers_give_the_same_losses(check: Check) -> Record:
    """Losses with gradient checkpointing against the same without."""
    return _beside(check, "recompute", {"model.activation_checkpointing": True}, LOSS_TOLERANCE)


class _Teacher(nn.Module):
    """Teacher that names the colour of an image: it needs no weights, and moves between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(4.0))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps pixels (B, 3, height, width) to logits (B, 4)."""
        colours = pixels.mean((2, 3)) * self.scale
        return torch.cat([colours, -colours.abs().sum(1, keepdim=True)], 1)


def a_student_learns_from_a_teacher(check: Check) -> Record:
    """Losses of hard and soft distillation are finite, and the two differ."""
    losses = {}
    for kind in ("hard", "soft"):
        wanted = job(check, f"distilled-{kind}", values={"distillation.kind": kind})
        losses[kind] = train(wanted, teacher=_Teacher())["losses"]
    finite = all(loss - loss == 0 for found in losses.values() for loss in found)
    return judged(finite and losses["hard"] != losses["soft"], losses=losses)


def adapters_train(check: Check) -> Record:
    """A run of low-rank adapters ends with finite losses."""
    try:
        import peft  # noqa: F401
    except ImportError:
        return not_available("peft is not installed")
    losses = train(job(check, "lora", values={"lora.rank": 4}))["losses"]
    return judged(all(loss - loss == 0 for loss in losses), losses=losses)


STEPS = (
    bf16_follows_fp32,
    fp16_follows_fp32,
    recomputed_layers_give_the_same_losses,
    a_student_learns_from_a_teacher,
    adapters_train,
    compiled_follows_eager,
)
