"""Configuration of the Vision Transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929)."""

from typing import Any, ClassVar, Self

from transformers.activations import ACT2FN

from .backbone_stages import BackboneStages
from .config_base import HubConfig
from .config_checks import (
    as_pair,
    check_bool,
    check_choice,
    check_fraction,
    check_label_maps,
    check_labels,
    check_largest,
    check_number_of_labels,
    check_number_of_patches,
    check_positive_float,
    check_positive_int,
    nearest_sizes,
)

# B, L and H from table 1 of the ViT paper; Ti and S from DeiT (https://arxiv.org/abs/2012.12877).
PRESETS: dict[str, dict[str, Any]] = {
    "Ti": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "patch_size": 16},
    "S": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 16},
    "B": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16},
    "L": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16},
    "H": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14},
}
# What every published DINOv3 has (https://arxiv.org/abs/2508.10104), and the sizes: width, layers, heads, width of the
# MLP, and whether it is gated.
_DINOV3 = {
    "patch_size": 16, "position_embedding_type": "rotary", "rotary_rescale": 2.0, "num_register_tokens": 4,
    "key_bias": False, "layer_scale_init_value": 1e-5, "layer_norm_eps": 1e-5, "use_mask_token": True,
    "drop_path_schedule": "uniform",
}  # fmt: skip
_DINOV3_SIZES = {
    "S": (384, 12, 6, 1536, False),
    "S+": (384, 12, 6, 1536, True),
    "B": (768, 12, 12, 3072, False),
    "L": (1024, 24, 16, 4096, False),
    "H+": (1280, 32, 20, 5120, True),
    "7B": (4096, 40, 32, 8192, True),
}
for _name, (_width, _layers, _heads, _mlp, _gated) in _DINOV3_SIZES.items():
    PRESETS[f"DINOv3-{_name}"] = _DINOV3 | {
        "hidden_size": _width, "num_hidden_layers": _layers, "num_attention_heads": _heads, "intermediate_size": _mlp,
        "use_swiglu_ffn": _gated, "qkv_bias": _name != "7B",
    }  # fmt: skip


class HubViTConfig(BackboneStages, HubConfig):
    """Configuration of a ViT. Every value is checked; a wrong one raises a `ValueError` that names field and value.

    Args:
        hidden_size: Width D of a token.
        num_hidden_layers: Number of encoder layers.
        num_attention_heads: Number of attention heads per layer; must divide `hidden_size`.
        intermediate_size: Width of the MLP; None means 4 D, or with SwiGLU two thirds of that, rounded up to a
            multiple of 8.
        hidden_act: Activation of the plain MLP, a name transformers knows.
        use_swiglu_ffn: Gated MLP silu(x W_g) * (x W_u) W_d (https://arxiv.org/abs/2002.05202) instead of the plain one.
        qkv_bias: Whether queries, keys and values have a bias.
        key_bias: Whether keys have a bias; None means `qkv_bias`. DINOv3 and BEiT have none, as it changes no output.
        qk_norm: Whether a LayerNorm per head follows the projections of queries and keys (ViT-22B,
            https://arxiv.org/abs/2302.05442, section 2.2).
        layer_norm_eps: Epsilon of every LayerNorm.
        layer_scale_init_value: Initial value of LayerScale (https://arxiv.org/abs/2103.17239); None disables it.
        hidden_dropout_prob: Dropout on embeddings and on the output of each attention and MLP, in [0, 1).
        attention_probs_dropout_prob: Dropout on attention weights, in [0, 1).
        classifier_dropout: Dropout before the classifier, in [0, 1).
        drop_path_rate: Probability of stochastic depth (https://arxiv.org/abs/1603.09382) to drop a sample's residual
            branch, in [0, 1).
        drop_path_schedule: Drop path rate by layer: "linear" grows from 0 in the first layer to `drop_path_rate` in
            the last, "uniform" is constant.
        image_size: Image size in pixels, one number or (height, width), that the position embeddings are stored for.
            Other sizes work at run time: the embeddings are resampled.
        patch_size: Patch size in pixels, one number or (height, width).
        num_channels: Number of image channels.
        patch_bias: Whether the patch projection has a bias.
        use_cls_token: Whether a CLS token is prepended.
        num_register_tokens: Number of register tokens (https://arxiv.org/abs/2309.16588), after CLS; they have no
            position embedding.
        use_mask_token: Whether a learned token for masked patches exists.
        position_embedding_type: Type of the position embeddings: "learned"; "sincos", fixed 2D sine-cosine
            (https://arxiv.org/abs/2104.02057); or "rotary", none, but queries and keys of the patches are turned by
            angles in proportion to row and column (https://arxiv.org/abs/2104.09864, as in DINOv3).
        rotary_theta: Base of the rotary frequencies, above 1.
        rotary_shift: Largest random shift of the rotary coordinates in training, in half image sides; None for none.
        rotary_jitter: Largest random factor of each rotary coordinate in training, above 1; None for none.
        rotary_rescale: Largest random factor of both rotary coordinates in training, above 1; None for none.
        position_embedding_prefix: Whether CLS (and the distillation token) have a position embedding of their own.
        position_embedding_resampling: Interpolation of the position embeddings: "bicubic_antialias" (as timm), or
            "bicubic" without antialiasing (as the native classes of transformers and the authors of DeiT).
        embedding_norm: Whether a LayerNorm follows the embeddings, before the encoder (as in CLIP).
        pool: Input of the classifier: "cls", the "mean" of the patch tokens, both concatenated, "cls+mean", or "map",
            attention of a learned query over all tokens (as in SigLIP).
        norm_after_pool: Whether the last LayerNorm is applied after pooling instead of before.
        add_pooling_layer: Whether a linear layer and tanh follow pooling in the bare model (as in BERT).
        initializer_range: Standard deviation of the truncated normal that initialises linear layers and tokens.
        apply_layernorm: Whether the last LayerNorm is applied to the feature maps of a backbone.
        reshape_hidden_states: Whether the feature maps of a backbone are (B, D, rows, columns), rather than all tokens,
            (B, N, D).
        **kwargs: `out_features` or `out_indices`, the feature maps of a backbone (see `BackboneStages`); labels
            (`num_labels`, `id2label`, `label2id`), `problem_type` and other fields that transformers accepts.

    Example:
        >>> config = HubViTConfig.preset("S", image_size=(224, 160), num_labels=5)
        >>> config.hidden_size, config.grid_size, config.num_prefix_tokens
        (384, (14, 10), 1)
    """

    model_type = "vithub_vit"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["hidden_states", "attentions"]
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    use_swiglu_ffn: bool = False
    qkv_bias: bool = True
    key_bias: bool | None = None
    qk_norm: bool = False
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float | None = None
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: str = "linear"
    image_size: int | tuple[int, int] | list[int] = 224
    patch_size: int | tuple[int, int] | list[int] = 16
    num_channels: int = 3
    patch_bias: bool = True
    use_cls_token: bool = True
    num_register_tokens: int = 0
    use_mask_token: bool = False
    position_embedding_type: str = "learned"
    rotary_theta: float = 100.0
    rotary_shift: float | None = None
    rotary_jitter: float | None = None
    rotary_rescale: float | None = None
    position_embedding_prefix: bool = True
    position_embedding_resampling: str = "bicubic_antialias"
    embedding_norm: bool = False
    pool: str = "cls"
    norm_after_pool: bool = False
    add_pooling_layer: bool = False
    initializer_range: float = 0.02
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Configuration of a published size with any field overridden.

        Args:
            name: "Ti", "S", "B", "L" or "H" of ViT and DeiT, or "DINOv3-S", "-S+", "-B", "-L", "-H+" or "-7B".
            **overrides: Fields that replace those of the size.

        Raises:
            ValueError: There is no such size, or a field has a wrong value.
        """
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {list(PRESETS)}, got {name!r}")
        return cls(**{**PRESETS[name], **overrides})

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs = self._further_fields(kwargs)
        maps = kwargs.pop("out_features", self._out_features), kwargs.pop("out_indices", self._out_indices)
        if isinstance(self.image_size, list):  # JSON has no tuples
            self.image_size = as_pair("image_size", self.image_size)
        if isinstance(self.patch_size, list):
            self.patch_size = as_pair("patch_size", self.patch_size)
        check_positive_int(self, "hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels")
        check_number_of_labels(kwargs)
        check_label_maps(self)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
            if self.use_swiglu_ffn:
                self.intermediate_size = (int(self.intermediate_size * 2 / 3) + 7) // 8 * 8
        check_largest(self, "num_hidden_layers")
        self.set_output_features_output_indices(*maps)
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Raises a `ValueError` that names the first field whose value is wrong or contradicts another."""
        self.verify_out_features_out_indices()
        check_positive_int(self, "intermediate_size")
        check_positive_int(self, "num_register_tokens", minimum=0)
        check_largest(self, "hidden_size", "num_hidden_layers", "intermediate_size", "num_register_tokens")
        check_largest(self, "num_channels")
        check_positive_float(self, "layer_norm_eps", "initializer_range")
        check_fraction(self, "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        check_fraction(self, "drop_path_rate")
        check_bool(self, "use_swiglu_ffn", "qkv_bias", "patch_bias", "use_cls_token", "use_mask_token")
        check_bool(self, "position_embedding_prefix", "embedding_norm", "norm_after_pool", "add_pooling_layer")
        check_bool(self, "apply_layernorm", "reshape_hidden_states")
        check_choice(self, "hidden_act", list(ACT2FN))
        check_choice(self, "drop_path_schedule", ["linear", "uniform"])
        check_bool(self, "qk_norm", *(["key_bias"] if self.key_bias is not None else []))
        check_choice(self, "position_embedding_type", ["learned", "sincos", "rotary"])
        self._check_rotary()
        check_choice(self, "position_embedding_resampling", ["bicubic", "bicubic_antialias"])
        check_choice(self, "pool", ["cls", "mean", "cls+mean", "map"])
        if self.problem_type is not None:
            check_choice(
                self, "problem_type", ["regression", "single_label_classification", "multi_label_classification"]
            )
        check_labels(self)
        if self.layer_scale_init_value is not None:
            check_positive_float(self, "layer_scale_init_value")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}"
            )
        if self.position_embedding_type == "sincos" and self.hidden_size % 4:
            raise ValueError(f"`hidden_size` must be a multiple of 4 with sincos positions, got {self.hidden_size}")
        (height, width), (patch_height, patch_width) = self.image_hw, self.patch_hw
        if height % patch_height or width % patch_width:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size`, got {self.image_size!r} and {self.patch_size!r}; "
                f"take {nearest_sizes(self.image_hw, self.patch_hw)}"
            )
        check_number_of_patches(self.image_hw, self.patch_hw)
        if "cls" in self.pool and not self.use_cls_token:
            raise ValueError(f"`pool` {self.pool!r} needs `use_cls_token=True`; without it, use pool='mean'")

    def _check_rotary(self) -> None:
        """Checks the fields of rotary positions, which have no effect with other positions."""
        factors = [name for name in ("rotary_jitter", "rotary_rescale") if getattr(self, name) is not None]
        given = [*factors, *(["rotary_shift"] if self.rotary_shift is not None else [])]
        if self.position_embedding_type != "rotary":
            if given:
                raise ValueError(
                    f"`{given[0]}` needs `position_embedding_type='rotary'`, got {self.position_embedding_type!r}"
                )
            return
        check_positive_float(self, "rotary_theta", *given)
        for name in ("rotary_theta", *factors):
            if getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be above 1, got {getattr(self, name)!r}")
        if self.hidden_size // self.num_attention_heads % 4:
            raise ValueError(
                "`hidden_size` / `num_attention_heads` must be a multiple of 4 with rotary positions, got "
                f"{self.hidden_size} / {self.num_attention_heads}"
            )

    @property
    def has_key_bias(self) -> bool:
        """True if the keys are projected with a bias: `key_bias`, or `qkv_bias` where that is None."""
        return self.qkv_bias if self.key_bias is None else self.key_bias

    @property
    def base_model_tp_plan(self) -> dict[str, str]:
        """Tensor parallelism plan: "colwise" or "rowwise" for each linear layer of the encoder, by name pattern."""
        mlp = ("gate_proj", "up_proj", "down_proj") if self.use_swiglu_ffn else ("fc1", "fc2")
        names = [
            *(f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
            *(f"mlp.{n}" for n in mlp),
        ]
        last = ("o_proj", "fc2", "down_proj")  # these read the sharded output of the layers before
        return {f"layers.*.{name}": "rowwise" if name.endswith(last) else "colwise" for name in names}

    @property
    def encoder_stride(self) -> int | tuple[int, int] | list[int]:
        """Side in pixels of the patch that a token reconstructs in masked image modelling: `patch_size`.

        transformers reads it under this name.
        """
        return self.patch_size

    @encoder_stride.setter
    def encoder_stride(self, value: int | tuple[int, int] | list[int]) -> None:
        if as_pair("encoder_stride", value) != self.patch_hw:
            self._refuse(
                f"`encoder_stride` must be `patch_size`, as each token reconstructs its patch, got {value!r} and "
                f"{self.patch_size!r}"
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """`image_size` as (height, width)."""
        return as_pair("image_size", self.image_size)

    @property
    def patch_hw(self) -> tuple[int, int]:
        """`patch_size` as (height, width)."""
        return as_pair("patch_size", self.patch_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patch grid (rows, columns) that the position embeddings are stored for."""
        (height, width), (patch_height, patch_width) = self.image_hw, self.patch_hw
        return height // patch_height, width // patch_width

    @property
    def num_class_tokens(self) -> int:
        """Number of leading tokens that may have a position embedding: CLS."""
        return int(self.use_cls_token)

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: the class tokens, then registers."""
        return self.num_class_tokens + self.num_register_tokens

    @property
    def num_position_prefix(self) -> int:
        """Number of leading rows of the position embeddings that belong to class tokens."""
        stored = self.position_embedding_prefix and self.position_embedding_type != "rotary"
        return self.num_class_tokens if stored else 0

    @property
    def mlp_size(self) -> int:
        """Width of the MLP: `intermediate_size`, which is never None once the configuration is built."""
        assert self.intermediate_size is not None
        return self.intermediate_size

    @property
    def pooled_size(self) -> int:
        """Width of the pooled features that the classifier reads."""
        return self.hidden_size * len(self.pool.split("+"))

    @property
    def drop_path_rates(self) -> list[float]:
        """Drop path rate of each layer, first to last."""
        depth = self.num_hidden_layers
        if self.drop_path_schedule == "uniform" or depth == 1:
            return [float(self.drop_path_rate)] * depth
        return [self.drop_path_rate * layer / (depth - 1) for layer in range(depth)]

    @property
    def output_attentions(self) -> bool:
        """Whether every call returns attention maps; allowed with every attention implementation."""
        return bool(self._output_attentions)

    @output_attentions.setter
    def output_attentions(self, value: bool) -> None:
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Accepts every value, because attention maps are returned under every attention implementation."""


__all__ = ["PRESETS", "HubViTConfig"]
