"""DeiT (Touvron et al. 2021, https://arxiv.org/abs/2012.12877): a ViT with a distillation token.

Shapes: B images, C channels, N tokens, D = hidden size, L labels.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..configuration.configuration_deit import HubDeiTConfig
from ..configuration.configuration_vit import HubViTConfig
from .classification_loss import classification_loss, distillation_loss, with_teacher
from .classifier_heads import HeadResizing
from .modeling_vit import HubViTModel, HubViTPreTrainedModel, freeze_mask_token, with_fields
from .vit_backbone import HubViTBackbone
from .vit_embeddings import HubViTEmbeddings


class HubDeiTEmbeddings(HubViTEmbeddings):
    """Embeddings of a DeiT. Differs from `HubViTEmbeddings` by the distillation token, after CLS."""

    config: HubDeiTConfig

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__(config)
        has_token = self.config.use_distillation_token
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if has_token else None

    def prefix_tokens(self) -> list[torch.Tensor]:
        """Tokens before the registers: CLS, then the distillation token, each (1, 1, D)."""
        return super().prefix_tokens() + ([] if self.distillation_token is None else [self.distillation_token])


class HubDeiTPreTrainedModel(HubViTPreTrainedModel):
    """Base class of the DeiT models. Differs from `HubViTPreTrainedModel` by the configuration."""

    config: HubDeiTConfig
    config_class = HubDeiTConfig
    base_model_prefix = "deit"
    _no_split_modules = ["HubDeiTEmbeddings", "HubViTLayer"]  # noqa: RUF012


class HubDeiTModel(HubDeiTPreTrainedModel, HubViTModel):
    """DeiT encoder without a head. Differs from `HubViTModel` by the distillation token.

    Its output is `last_hidden_state[:, 1]` where there is a CLS token, otherwise `last_hidden_state[:, 0]`.
    """

    embeddings_class = HubDeiTEmbeddings


class HubDeiTBackbone(HubDeiTPreTrainedModel, HubViTBackbone):
    """DeiT encoder that returns feature maps. Differs from `HubViTBackbone` by the distillation token."""

    embeddings_class = HubDeiTEmbeddings


@dataclass
class HubDeiTImageClassifierOutput(ModelOutput):
    """Output of the DeiT classifier.

    Args:
        loss: Scalar loss, where labels or a teacher's output were given.
        logits: Mean of both heads' logits, (B, L), or those of the CLS head where it is the only one.
        cls_logits: Logits of the CLS head, (B, L).
        distillation_logits: Logits of the distillation head, (B, L), or None.
        hidden_states: Embeddings and each layer's output, (B, N, D) each, where asked for.
        attentions: Attention weights of each layer, (B, heads, N, N) each, where asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    cls_logits: torch.Tensor | None = None
    distillation_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class HubDeiTForImageClassification(HeadResizing, HubDeiTPreTrainedModel):
    """DeiT with one classifier on CLS and one on the distillation token; it can be trained with a teacher."""

    head_names = ("classifier", "distillation_classifier")
    uses_mask_token = False

    def __init__(self, config: HubDeiTConfig) -> None:
        config = with_fields(config, add_pooling_layer=False)
        super().__init__(config)
        self.deit = HubDeiTModel(config)
        freeze_mask_token(self.deit)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels)
        has_head = config.use_distillation_head
        self.distillation_classifier = nn.Linear(config.hidden_size, config.num_labels) if has_head else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        teacher_logits: torch.Tensor | None = None,
        teacher_decisions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> HubDeiTImageClassifierOutput:
        """Classifies images, and computes the loss where labels or a teacher's output are given.

        With labels and a teacher the loss is (1 - alpha) * base(CLS head, labels) + alpha * distillation term on the
        distillation head (DeiT, eq. 2 and 3; see `distillation_loss`). With a teacher alone it is the distillation
        term. With labels alone it is the base loss of `logits`, so that both heads learn; in training this raises
        where the configuration sets `distillation`.

        Args:
            pixel_values: Normalised images (B, C, height, width).
            labels: Class indices (B,), or probabilities (B, L) as mixup makes them; see `classification_loss`.
            teacher_logits: Teacher's logits (B, L), for the same images and labels.
            teacher_decisions: Class indices (B,) that the teacher predicts; they suffice for hard distillation. The
                name of version 0.1, `teacher_labels`, is still accepted, with a `FutureWarning`.
            **kwargs: Further arguments of `HubViTModel.forward`, such as `output_attentions`.

        Raises:
            ValueError: A teacher is given with `distillation="none"`, or missing in training with another setting.
        """
        if (old := kwargs.pop("teacher_labels", None)) is not None:
            teacher_decisions = _renamed(old, teacher_decisions)
        outputs = self.deit(pixel_values, **kwargs)
        cls_logits = self.classifier(self.dropout(outputs.pooler_output))
        distillation_logits, logits = None, cls_logits
        if self.distillation_classifier is not None:
            token = outputs.last_hidden_state[:, int(self.config.use_cls_token)]
            distillation_logits = self.distillation_classifier(self.dropout(token))
            logits = (cls_logits + distillation_logits) / 2
        return HubDeiTImageClassifierOutput(
            loss=self._loss(logits, cls_logits, distillation_logits, labels, teacher_logits, teacher_decisions),
            logits=logits,
            cls_logits=cls_logits,
            distillation_logits=distillation_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(
        self,
        logits: torch.Tensor,
        cls_logits: torch.Tensor,
        distillation_logits: torch.Tensor | None,
        labels: torch.Tensor | None,
        teacher_logits: torch.Tensor | None,
        teacher_decisions: torch.Tensor | None,
    ) -> torch.Tensor | None:
        config = self.config
        if teacher_logits is None and teacher_decisions is None:
            if labels is None:
                return None
            if self.training and config.distillation != "none":
                raise ValueError(
                    f"training with distillation={config.distillation!r} needs `teacher_logits` or "
                    "`teacher_decisions`; set config.distillation = 'none' to train without a teacher"
                )
            return classification_loss(logits, labels, config)
        if config.distillation == "none":
            raise ValueError(
                "`teacher_logits` or `teacher_decisions` given, but config.distillation is 'none'; "
                "set it to 'soft' or 'hard'"
            )
        student = cls_logits if distillation_logits is None else distillation_logits
        taught = distillation_loss(student, config, teacher_logits, teacher_decisions)
        if labels is None:
            return taught
        return with_teacher(classification_loss(cls_logits, labels, config), taught, config.distillation_alpha)


def _renamed(old: torch.Tensor, new: torch.Tensor | None) -> torch.Tensor:
    """Teacher's decisions given under their old name, which `Trainer` would take for the images' own labels."""
    if new is not None:
        raise ValueError("`teacher_labels` is the old name of `teacher_decisions`: give one of them, got both")
    warnings.warn("`teacher_labels` is now called `teacher_decisions`", FutureWarning, stacklevel=6)
    return old


__all__ = [
    "HubDeiTBackbone",
    "HubDeiTForImageClassification",
    "HubDeiTImageClassifierOutput",
    "HubDeiTModel",
    "HubDeiTPreTrainedModel",
]
