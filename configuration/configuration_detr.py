"""Configuration of DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872), which predicts boxes as a set."""

from copy import deepcopy
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN

from .config_base import HubConfig
from .config_checks import (
    check_bool,
    check_choice,
    check_fraction,
    check_label_maps,
    check_labels,
    check_largest,
    check_number_of_labels,
    check_positive_float,
    check_positive_int,
)
from .configuration_deit import HubDeiTConfig
from .configuration_vit import HubViTConfig

_OURS: dict[str, type[HubViTConfig]] = {config.model_type: config for config in (HubViTConfig, HubDeiTConfig)}
_COSTS = ("class_cost", "bbox_cost", "giou_cost")
_COEFFICIENTS = ("class_loss_coefficient", "bbox_loss_coefficient", "giou_loss_coefficient")


class HubDetrConfig(HubConfig):
    """Configuration of a DETR, its matching and its loss. The defaults are those of the paper; later options are off.

    Args:
        backbone_config: Configuration (or its dict, with `model_type`) of any backbone that `AutoBackbone` builds,
            or of our ViT or DeiT; its last feature map is used, of these that of the last layer unless `out_indices`
            names another. None means ResNet-50 of transformers, stage 4.
        frozen_stages: Number of backbone stages that are not trained, with the stem (or patch embedding) before them.
            A stage ends where the stride doubles; each layer of a ViT is a stage. 0 trains everything.
        freeze_batch_norm: Whether batch normalisation keeps its statistics and its affine parameters.
        dilation: Whether dilation replaces the stride of the last stage, which keeps the resolution of the one before
            ("DC5").
        num_queries: Number of object queries Q: the largest number of boxes that can be found in an image.
        d_model: Width D of encoder and decoder; a multiple of 4 and of both numbers of heads.
        encoder_layers: Number of encoder layers.
        decoder_layers: Number of decoder layers.
        encoder_attention_heads: Heads per encoder layer.
        decoder_attention_heads: Heads per decoder layer.
        encoder_ffn_dim: Width of the encoder's MLP.
        decoder_ffn_dim: Width of the decoder's MLP.
        activation_function: Activation of the encoder's and the decoder's MLPs, a name transformers knows.
        dropout: Dropout on the output of each attention and MLP, in [0, 1).
        attention_dropout: Dropout on attention weights, in [0, 1).
        activation_dropout: Dropout on the hidden activations of the MLPs, in [0, 1).
        position_temperature: Temperature of the sine position embeddings: wavelengths run from 2 pi to 2 pi times the
            temperature, where the image measures 2 pi. DETR uses 10000, DAB-DETR 20.
        auxiliary_loss: Whether the loss is computed for every decoder layer, not only for the last.
        class_cost: Weight of the class in the matching cost.
        bbox_cost: Weight of the L1 distance in the matching cost.
        giou_cost: Weight of the generalised IoU in the matching cost.
        class_loss_coefficient: Weight of the classes in the loss.
        bbox_loss_coefficient: Weight of the L1 distance in the loss.
        giou_loss_coefficient: Weight of the generalised IoU in the loss.
        eos_coefficient: Weight of "no object" in the cross-entropy.
        anchor_queries: Whether queries are boxes that each decoder layer refines (DAB-DETR,
            https://arxiv.org/abs/2201.12329).
        denoising_queries: Number of additional queries in training, which start from noised target boxes (DN-DETR,
            https://arxiv.org/abs/2203.01305); each image gets as many whole copies of its boxes as fit. 0 disables
            denoising; any other number needs `anchor_queries`.
        denoising_label_noise: Probability that a denoising query starts with a random class, in [0, 1).
        denoising_box_noise: Largest relative noise of a denoising box, in [0, 1): its centre moves by up to this
            fraction of half the size, and its size changes by up to this fraction.
        focal_loss: Whether classes are independent sigmoids, without "no object", trained with the focal loss
            (https://arxiv.org/abs/1708.02002).
        focal_alpha: Weight of the objects in the focal loss, in [0, 1).
        focal_gamma: Exponent of the focal loss, above 0.
        initializer_range: Standard deviation of the initial weights that use neither Xavier nor a value of the papers.
        **kwargs: Labels (`num_labels`, `id2label`, `label2id`) and other fields that transformers accepts.

    Example:
        >>> config = HubDetrConfig(num_labels=3, anchor_queries=True, focal_loss=True)
        >>> config.num_queries, config.num_class_logits, config.backbone_config.model_type
        (100, 3, 'resnet')
    """

    model_type = "vithub_detr"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }
    # Same as DETR in transformers, so that metric functions written for its predictions find them at the same index.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    is_encoder_decoder: bool = True
    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    frozen_stages: int = 1
    freeze_batch_norm: bool = True
    dilation: bool = False
    num_queries: int = 100
    d_model: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    position_temperature: float = 10000.0
    auxiliary_loss: bool = True
    class_cost: float = 1.0
    bbox_cost: float = 5.0
    giou_cost: float = 2.0
    class_loss_coefficient: float = 1.0
    bbox_loss_coefficient: float = 5.0
    giou_loss_coefficient: float = 2.0
    eos_coefficient: float = 0.1
    anchor_queries: bool = False
    denoising_queries: int = 0
    denoising_label_noise: float = 0.2
    denoising_box_noise: float = 0.4
    focal_loss: bool = False
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs = self._further_fields(kwargs)
        check_number_of_labels(kwargs)
        check_label_maps(self)
        self.backbone_config = backbone_configuration(self.backbone_config)
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Raises a `ValueError` that names the first field whose value is wrong or contradicts another."""
        check_positive_int(self, "num_queries", "d_model", "encoder_layers", "decoder_layers")
        check_positive_int(self, "encoder_attention_heads", "decoder_attention_heads")
        check_positive_int(self, "encoder_ffn_dim", "decoder_ffn_dim")
        check_positive_int(self, "frozen_stages", "denoising_queries", minimum=0)
        check_largest(self, "num_queries", "denoising_queries", "d_model", "encoder_layers", "decoder_layers")
        check_largest(self, "encoder_ffn_dim", "decoder_ffn_dim")
        check_fraction(self, "dropout", "attention_dropout", "activation_dropout")
        check_fraction(self, "denoising_label_noise", "denoising_box_noise", "focal_alpha")
        check_bool(self, "freeze_batch_norm", "dilation", "auxiliary_loss", "anchor_queries", "focal_loss")
        check_positive_float(self, "position_temperature", "eos_coefficient", "focal_gamma", "initializer_range")
        check_choice(self, "activation_function", list(ACT2FN))
        check_labels(self)
        for names in (_COSTS, _COEFFICIENTS):
            values = {name: getattr(self, name) for name in names}
            numbers = all(isinstance(v, (int, float)) and 0 <= v < float("inf") for v in values.values())
            if not numbers or not any(values.values()):
                raise ValueError(f"{', '.join(f'`{n}`' for n in names)} must be at least 0, not all 0, got {values}")
        if self.d_model % 4:
            raise ValueError(f"`d_model` must be a multiple of 4, got {self.d_model}")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % (heads := getattr(self, name)):
                raise ValueError(f"`d_model` must be a multiple of `{name}`, got {self.d_model} and {heads}")
        if not getattr(self.backbone_config, "reshape_hidden_states", True):
            raise ValueError(
                "`reshape_hidden_states` of `backbone_config` must be True: a detector reads maps, got False"
            )
        if self.denoising_queries and not self.anchor_queries:
            raise ValueError(
                f"`denoising_queries` start from boxes: they need `anchor_queries=True`, got {self.denoising_queries}"
            )

    @property
    def num_class_logits(self) -> int:
        """Number of logits per query: the classes, and "no object" last where the loss is the cross-entropy."""
        return int(self.num_labels) + (0 if self.focal_loss else 1)

    @property
    def num_channels(self) -> int:
        """Number of image channels, read from the backbone's configuration; 3 where it states none."""
        return int(getattr(self.backbone_config, "num_channels", 3))

    @num_channels.setter
    def num_channels(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`num_channels` must be a whole number of at least 1, got {value!r}")
        if value == self.num_channels:
            return
        if not hasattr(self.backbone_config, "num_channels"):
            raise ValueError(f"`num_channels` of this backbone is {self.num_channels} and cannot be set, got {value}")
        backbone: Any = deepcopy(self.backbone_config)  # the caller may share it with another model
        backbone.num_channels = value
        self.backbone_config = backbone

    @property
    def output_attentions(self) -> bool:
        """Whether every call returns attention maps; allowed with every attention implementation."""
        return bool(self._output_attentions)

    @output_attentions.setter
    def output_attentions(self, value: bool) -> None:
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Accepts every value, because attention maps are returned under every attention implementation."""


def backbone_configuration(given: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    """Configuration object of the backbone; None means ResNet-50 with its last stage as output."""
    if isinstance(given, PreTrainedConfig):
        return given
    if given is None:
        return AutoConfig.for_model("resnet", out_features=["stage4"])
    if not isinstance(given, dict) or not isinstance(given.get("model_type"), str):
        raise ValueError(f"`backbone_config` must be a configuration, or a dict with its `model_type`, got {given!r}")
    values = {name: value for name, value in given.items() if name != "transformers_version"}
    model_type = values.pop("model_type")
    if model_type in _OURS:  # AutoConfig knows them only where the package is installed
        return _OURS[model_type](**values)
    try:
        return AutoConfig.for_model(model_type, **values)
    except ValueError as error:
        raise ValueError(f"`backbone_config` names the model type {model_type!r}: {error}") from error


__all__ = ["HubDetrConfig", "backbone_configuration"]
