"""The optimizer of a recipe, over the parameter groups of a model."""

import torch
from timm.optim import Lamb, Muon
from torch import nn

from ..recipe.sections import TrainingSettings
from .parameter_groups import parameter_groups


def build_optimizer(model: nn.Module, settings: TrainingSettings, lr: float) -> torch.optim.Optimizer:
    """AdamW, SGD with momentum, LAMB (https://arxiv.org/abs/1904.00962) or Muon (https://kellerjordan.github.io/posts/muon).

    LAMB does not clip, as the loop does where the recipe says so. Muon takes the matrices inside the layers; tokens,
    embeddings, norms, biases and heads get AdamW, whose rate the scaling of Muon's steps fits.

    Args:
        model: Its parameters that require gradients are taken.
        settings: Of the recipe.
        lr: Peak rate of the head.
    """
    backbone = None if settings.backbone_lr is None else settings.backbone_lr / settings.lr
    groups = parameter_groups(model, lr, settings.weight_decay, settings.layer_decay, backbone, settings.decay_all)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    if settings.optimizer == "lamb":
        return Lamb(groups, lr=lr, betas=settings.betas, eps=settings.epsilon, max_grad_norm=None)
    if settings.optimizer == "muon":
        for group in groups:
            group["use_fallback"] = not (group["decays"] and group["inner"])
        return Muon(groups, lr=lr, momentum=settings.momentum, nesterov=True, betas=settings.betas)
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = kinds <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, eps=settings.epsilon, fused=fused)


__all__ = ["build_optimizer"]
