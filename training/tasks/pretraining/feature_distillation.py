"""Feature distillation: a backbone learns a teacher's features of images and patches through a linear map.

The distance is AM-RADIO's (https://arxiv.org/abs/2312.06709, section 3.3): mostly the angle, and a little smooth L1.
Shapes: B images, C channels, N patches, D = width of the student, T = width of the teacher.
"""

from typing import Any

import torch
from torch import nn

from ....modeling.modeling_vit import HubViTModel
from ...recipe.pretraining_settings import PretrainingSettings
from .learners import Learner, image_tokens, initialize


class FeatureDistillation(Learner):
    """Backbone with a linear map from its CLS token, and one from its patches, to the teacher's features.

    Args:
        vit: Backbone to train.
        settings: Pretraining settings of the recipe.
        width: Width T of the teacher's features.
    """

    def __init__(self, vit: HubViTModel, settings: PretrainingSettings, width: int) -> None:
        super().__init__(vit)
        self.settings = settings
        own = vit.config.hidden_size
        self.head = nn.ModuleDict({"image": nn.Linear(own, width), "patches": nn.Linear(own, width)})
        initialize(self.head, vit.config.initializer_range)

    def forward(
        self, *, pixel_values: torch.Tensor, image_targets: torch.Tensor, patch_targets: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Computes the distance of each image's features from the teacher's, (B,) fp32.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            image_targets: Teacher's features of the images, (B, T).
            patch_targets: Teacher's features of the patches, (B, N, T).
            **kwargs: Arguments of the backbone, such as `batch_window`.
        """
        image, patches = image_tokens(self.vit, self.vit(pixel_values, **kwargs).last_hidden_state)
        share, settings = self.settings.cosine_share, self.settings
        of_image = feature_distance(self.head["image"](image), image_targets, share)
        of_patches = feature_distance(self.head["patches"](patches), patch_targets, share).mean(dim=1)
        return settings.image_weight * of_image + settings.patch_weight * of_patches


def feature_distance(found: torch.Tensor, wanted: torch.Tensor, cosine_share: float) -> torch.Tensor:
    """Distance of features (..., T) from targets of the same shape, (...): 1 - cosine, and smooth L1.

    The targets are standardised over their T values first, so that the distance does not depend on a teacher's scale.

    Args:
        found: Mapped features of the student.
        wanted: Features of the teacher.
        cosine_share: Weight of the cosine's term, in [0, 1]; that of smooth L1 is the rest.
    """
    found, wanted = found.float(), nn.functional.layer_norm(wanted.float(), wanted.shape[-1:])
    angle = 1 - nn.functional.cosine_similarity(found, wanted, dim=-1)
    amount = nn.functional.smooth_l1_loss(found, wanted, reduction="none").mean(dim=-1)
    return cosine_share * angle + (1 - cosine_share) * amount


__all__ = ["FeatureDistillation", "feature_distance"]
