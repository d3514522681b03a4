"""Training in bfloat16 throughout with float32 master weights (Micikevicius et al., arXiv 1710.03740, section 3.1)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...modeling.modeling_vit import HubViTPreTrainedModel
from ..recipe.recipe import RecipeError
from ..recipe.sections import TrainingSettings


class MasterWeights(nn.Module):
    """Runs a module in bfloat16 while its own parameters, the master weights, stay float32.

    Each call computes with bfloat16 casts of all parameters and buffers, which are made once, and not once per use as
    under autocast; states between layers are bfloat16 too. Gradients reach the float32 parameters, so optimizer,
    accumulation, gradient clipping, EMA, checkpoints and the exchange between processes work as without this class.

    Args:
        module: Module to run, possibly wrapped by `DistributedDataParallel` or `torch.compile`.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module; the arguments and the output are the module's own, with states and logits in bfloat16."""
        return torch.func.functional_call(self.module, self._casts(), args, kwargs)

    def _casts(self) -> dict[str, torch.Tensor]:
        """Returns the values in bfloat16 by name; gradients of the trained ones reach the parameters."""
        trained = {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        others = {name: value for name, value in _tensors(self.module) if name not in trained}
        casts = dict(zip(trained, _ToBfloat16.apply(*trained.values()), strict=True)) if trained else {}
        fixed = {name: value.to(torch.bfloat16) for name, value in others.items() if value.dtype == torch.float32}
        return casts | fixed


class _ToBfloat16(torch.autograd.Function):
    """Cast of float32 tensors to bfloat16 and of their gradients back, each in one call for all tensors."""

    @staticmethod
    def forward(ctx: Any, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)  # a parameter that the step does not use has no gradient, as without the cast
        return _cast(tensors, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:  # noqa: ARG004
        casts = iter(_cast([gradient for gradient in gradients if gradient is not None], torch.float32))
        return tuple(None if gradient is None else next(casts) for gradient in gradients)


def _cast(tensors: Iterable[torch.Tensor], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    sources = list(tensors)
    casts = [torch.empty_like(tensor, dtype=dtype) for tensor in sources]
    if sources:
        torch._foreach_copy_(casts, sources)
    return tuple(casts)


def _tensors(module: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def with_master_weights(module: nn.Module, learner: nn.Module, settings: TrainingSettings, precision: str) -> nn.Module:
    """Returns the module to compute a step with: `module`, or its `MasterWeights` if the settings ask for them.

    Args:
        module: Module to train, as prepared for its device and processes.
        learner: The same module, not wrapped.
        settings: Training settings of the recipe.
        precision: Precision of the run: "fp32", "bf16" or "fp16".

    Raises:
        RecipeError: The model is none of this package's ViTs, or its weights are sharded.
    """
    if not uses_master_weights(settings, precision):
        return module
    if not isinstance(learner, HubViTPreTrainedModel):
        raise RecipeError(
            f"training.master_weights: only for the ViT and DeiT models of this package, got {type(learner).__name__}"
        )
    if any(hasattr(parameter, "placements") for parameter in module.parameters()):
        raise RecipeError("training.master_weights: not with sharded weights, whose casts FSDP2 makes itself")
    return MasterWeights(module)


def uses_master_weights(settings: TrainingSettings, precision: str) -> bool:
    """Whether a run of this precision computes in bfloat16 throughout, in place of autocast."""
    return settings.master_weights and precision == "bf16"


def autocast_precision(settings: TrainingSettings, precision: str) -> str:
    """Returns the precision that Accelerate casts single operations to: "no", "bf16" or "fp16"."""
    return "no" if precision == "fp32" or uses_master_weights(settings, precision) else precision


__all__ = ["MasterWeights", "autocast_precision", "uses_master_weights", "with_master_weights"]
