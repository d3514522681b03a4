"""Two small networks for comparison with a small ViT: a ResNet, and a ViT with a convolutional stem.

Importing this module registers them with the Auto classes.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from ..configuration.configuration_vit import HubViTConfig
from ..modeling.classification_loss import classification_loss
from ..modeling.modeling_vit import HubViTModel


class SmallResNetConfig(PreTrainedConfig):
    """Configuration of a ResNet for small images (He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2).

    Args:
        widths: Channels of each stage; each stage except the first halves height and width.
        blocks: Number of blocks per stage; a network has 2 x stages x blocks + 2 layers.
        stem_stride: Stride of the first convolution: 1 for 32 pixels, 2 for 64.
        **kwargs: Labels and other fields that transformers accepts.
    """

    model_type = "vithub_small_resnet"

    widths: tuple[int, ...] | list[int] = (16, 32, 64)
    blocks: int = 3
    stem_stride: int = 1


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )  # fmt: skip

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.bn1(self.conv1(states)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(states))


class SmallResNet(PreTrainedModel):
    """ResNet classifier of a `SmallResNetConfig`."""

    config: SmallResNetConfig
    config_class = SmallResNetConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__(config)
        width = config.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, config.stem_stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        for stage, outside in enumerate(config.widths):
            for number in range(config.blocks):
                blocks.append(_Block(width, outside, 2 if stage and not number else 1))
                width = outside
        self.stages = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Does nothing: torch's own initialization is kept."""

    def forward_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Computes the last feature map (B, D, h, w) of pixels (B, 3, H, W)."""
        return self.stages(self.stem(pixel_values))

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **_: Any
    ) -> ImageClassifierOutput:
        """Computes `logits` (B, L), and `loss` if labels are given."""
        logits = self.classifier(self.forward_features(pixel_values).mean((2, 3)))
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits)


class ConvStemViTConfig(HubViTConfig):
    """Configuration of a ViT with a stem of overlapping convolutions; the fields are those of `HubViTConfig`.

    `patch_size` must be one number and a power of two.
    """

    model_type = "vithub_conv_stem_vit"


class _ConvStem(nn.Module):
    """Convolutions of stride 2 down to one cell per patch (Xiao et al. 2021, https://arxiv.org/abs/2106.14881)."""

    def __init__(self, config: HubViTConfig) -> None:
        super().__init__()
        patch, width = config.patch_hw[0], config.hidden_size
        halvings = patch.bit_length() - 1
        if config.patch_hw != (patch, patch) or 2**halvings != patch or not halvings:
            raise ValueError(f"`patch_size` must be one number, a power of two from 2, got {config.patch_size!r}")
        widths = [max(8, width >> (halvings - 1 - step)) for step in range(halvings)]
        layers: list[nn.Module] = []
        for inside, outside in zip([config.num_channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(inside, outside, 3, 2, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.layers, self.project = nn.Sequential(*layers), nn.Conv2d(widths[-1], width, 1)

    @property
    def weight(self) -> torch.Tensor:
        """Weight of the last layer, whose dtype the embeddings use."""
        return self.project.weight

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Computes tokens (B, N, D) of pixels (B, C, height, width), patches row by row."""
        return self.project(self.layers(pixel_values)).flatten(2).transpose(1, 2)


class ConvStemViT(PreTrainedModel):
    """Classifier of a `ConvStemViTConfig`: a hybrid of convolutions and attention."""

    config: ConvStemViTConfig
    config_class = ConvStemViTConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False
    _supports_sdpa = True

    def __init__(self, config: ConvStemViTConfig) -> None:
        super().__init__(config)
        self.encoder = HubViTModel(config, add_pooling_layer=False)
        embeddings: Any = self.encoder.embeddings
        embeddings.patch_embeddings = _ConvStem(config)
        self.classifier = nn.Linear(config.pooled_size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Does nothing: torch's own initialization is kept, and the encoder has its own."""

    def forward_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Computes tokens (B, N, D) of pixels (B, 3, H, W)."""
        tokens: torch.Tensor = self.encoder(pixel_values).last_hidden_state
        return tokens

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Computes `logits` (B, L), and `loss` if labels are given."""
        logits = self.classifier(self.encoder(pixel_values, **kwargs).pooler_output)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return ImageClassifierOutput(loss=loss, logits=logits)


for _config, _model in ((SmallResNetConfig, SmallResNet), (ConvStemViTConfig, ConvStemViT)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForImageClassification.register(_config, _model, exist_ok=True)

__all__ = ["ConvStemViT", "ConvStemViTConfig", "SmallResNet", "SmallResNetConfig"]
