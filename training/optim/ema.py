"""An average of the weights over the steps, sharded where they are."""

from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from ..recipe.sections import TrainingSettings
from ..runtime.processes import shard


def weights_ema(learner: nn.Module, settings: TrainingSettings, accelerator: Accelerator) -> ModelEmaV3 | None:
    """The average that a recipe asks for, or None.

    Args:
        learner: What is averaged, on its device; not yet prepared by `accelerator`, since a sharded module cannot be
            copied.
        settings: Of the recipe.
        accelerator: Of all processes.
    """
    if settings.ema_decay is None:
        return None
    average = ModelEmaV3(learner, decay=settings.ema_decay, use_warmup=settings.ema_warmup)
    shard(average.module, accelerator)
    return average


__all__ = ["weights_ema"]
