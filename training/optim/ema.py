"""Exponential moving average (EMA) of the weights over the steps, sharded as the model is."""

from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from ..recipe.sections import TrainingSettings
from ..runtime.processes import shard


def weights_ema(learner: nn.Module, settings: TrainingSettings, accelerator: Accelerator) -> ModelEmaV3 | None:
    """Makes the EMA that a recipe asks for; returns None if it asks for none.

    Args:
        learner: Module to average, on its device; not yet prepared by `accelerator`, since a sharded module cannot be
            copied.
        settings: Training settings of the recipe.
        accelerator: Accelerator, which says whether modules are sharded.
    """
    if settings.ema_decay is None:
        return None
    average = ModelEmaV3(learner, decay=settings.ema_decay, use_warmup=settings.ema_warmup)
    shard(average.module, accelerator)
    return average


__all__ = ["weights_ema"]
