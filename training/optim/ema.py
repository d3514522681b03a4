"""Exponential moving average (EMA) of the weights over the steps, sharded as the model is."""

from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from ..recipe.sections import TrainingSettings
from ..runtime.processes import shard


class WeightsEma(ModelEmaV3):
    """EMA of weights and buffers that averages a tensor once, however many names it has.

    Differs from `ModelEmaV3`, which averages a parameter that several modules share once for each of them.
    """

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Moves the average by 1 - `decay` of the way to the weights of `model`; integers are copied."""
        own, other = self.module.state_dict(keep_vars=True), model.state_dict(keep_vars=True)
        first = {id(tensor): name for name, tensor in reversed(own.items())}
        if len(first) == len(own):
            super().apply_update_(model, decay)
            return
        for name in first.values():
            average, tensor = own[name].detach(), other[name].detach().to(own[name].device)
            if average.is_floating_point():
                average.lerp_(tensor.to(average.dtype), weight=1.0 - decay)
            else:
                average.copy_(tensor)


def weights_ema(learner: nn.Module, settings: TrainingSettings, accelerator: Accelerator) -> WeightsEma | None:
    """Makes the EMA that a recipe asks for; returns None if it asks for none.

    Args:
        learner: Module to average, on its device; not yet prepared by `accelerator`, since a sharded module cannot be
            copied.
        settings: Training settings of the recipe.
        accelerator: Accelerator, which says whether modules are sharded.
    """
    if settings.ema_decay is None:
        return None
    average = WeightsEma(learner, decay=settings.ema_decay, use_warmup=settings.ema_warmup)
    shard(average.module, accelerator)
    return average


__all__ = ["WeightsEma", "weights_ema"]
