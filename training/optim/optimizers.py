"""Optimizer of a recipe, built over the parameter groups of a model."""

import torch
from timm.optim import Lamb, Muon
from torch import nn
from torch.distributed.tensor import DTensor

from ..recipe.sections import TrainingSettings
from .parameter_groups import parameter_groups


def build_optimizer(model: nn.Module, settings: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """Builds AdamW, SGD with momentum, LAMB or Muon.

    Sources: LAMB (https://arxiv.org/abs/1904.00962), Muon (https://kellerjordan.github.io/posts/muon).

    LAMB's own gradient clipping is off; the training loop clips if the recipe says so. Muon updates the matrices inside
    the layers; tokens, embeddings, norms, biases and heads use AdamW, at a learning rate to which the scaling of Muon's
    steps is matched.

    Args:
        model: Model whose trainable parameters are optimized.
        settings: Training settings of the recipe.
        lr: Peak learning rate of the head.
    """
    backbone = None if settings.backbone_lr is None else settings.backbone_lr / settings.lr
    groups = parameter_groups(
        model, lr, settings.weight_decay, settings.layer_decay, backbone, settings.decay_all,
        matrices_apart=settings.optimizer == "muon",
    )  # fmt: skip
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    if settings.optimizer == "lamb":
        return Lamb(groups, lr=lr, betas=settings.betas, eps=settings.epsilon, max_grad_norm=None)
    if settings.optimizer == "muon":
        for group in groups:
            group["use_fallback"] = not group["matrices"]
        return Muon(groups, lr=lr, momentum=settings.momentum, nesterov=True, betas=settings.betas)
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = kinds <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, eps=settings.epsilon, fused=fused)


def skips_by_flag(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer can leave out a step by a flag on its device, which the host does not have to read.

    torch's fused optimizers take such a flag as the attribute `found_inf`, which `torch.amp.GradScaler` sets too
    (tried with torch 2.8 to 2.14). Sharded parameters are left out: the flag would have to be sharded as they are.
    """
    groups = optimizer.param_groups
    whole = not any(isinstance(parameter, DTensor) for group in groups for parameter in group["params"])
    return isinstance(optimizer, torch.optim.AdamW) and whole and all(group["fused"] for group in groups)


def set_skip_flag(optimizer: torch.optim.Optimizer, flag: torch.Tensor | None) -> None:
    """Makes the next steps depend on a flag, 1.0 to leave a step out and 0.0 to make it; None removes the flag."""
    if flag is not None:
        optimizer.found_inf = flag  # type: ignore[attr-defined]
    elif hasattr(optimizer, "found_inf"):
        del optimizer.found_inf


__all__ = ["build_optimizer", "set_skip_flag", "skips_by_flag"]
