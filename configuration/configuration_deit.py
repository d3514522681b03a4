"""Configuration of DeiT (Touvron et al. 2021, https://arxiv.org/abs/2012.12877), a ViT with a distillation token."""

from .config_checks import check_bool, check_choice, check_fraction, check_positive_float
from .configuration_vit import HubViTConfig


class HubDeiTConfig(HubViTConfig):
    """Configuration of a DeiT. Differs from `HubViTConfig` by the distillation token, its head and its loss.

    Args:
        distillation: Training target of the distillation head: "none" (the labels, like the CLS head), "soft" (the
            teacher's distribution) or "hard" (the teacher's decision).
        distillation_temperature: Temperature tau of soft distillation, above 0.
        distillation_alpha: Weight alpha of the teacher's term in the loss, in [0, 1]; the labels' term has 1 - alpha.
        distillation_reduction: Averaging of the soft term: "deit" divides the summed divergence by batch size times
            classes C (as the authors' code), "batchmean" by the batch size alone (as timm), C times larger.
        use_distillation_token: Whether the distillation token exists; it follows CLS.
        use_distillation_head: Whether a second classifier reads the distillation token. Without it, the CLS head
            learns from the teacher.

    Example:
        >>> HubDeiTConfig(distillation="hard").num_prefix_tokens
        2
    """

    model_type = "vithub_deit"
    keys_to_ignore_at_inference = ["cls_logits", "distillation_logits", "hidden_states", "attentions"]  # noqa: RUF012

    distillation: str = "none"
    distillation_temperature: float = 1.0
    distillation_alpha: float = 0.5
    distillation_reduction: str = "deit"
    use_distillation_token: bool = True
    use_distillation_head: bool = True

    def check(self) -> None:
        """Checks the fields of `HubViTConfig`, then those of distillation; raises a `ValueError` on the first fault."""
        super().check()
        check_choice(self, "distillation", ["none", "soft", "hard"])
        check_choice(self, "distillation_reduction", ["deit", "batchmean"])
        check_positive_float(self, "distillation_temperature")
        check_bool(self, "use_distillation_token", "use_distillation_head")
        if self.distillation_alpha != 1:
            check_fraction(self, "distillation_alpha")
        if self.use_distillation_head and not self.use_distillation_token:
            raise ValueError("`use_distillation_head` reads the token: it needs `use_distillation_token`, got False")
        if self.use_distillation_head and (self.pool == "cls+mean" or self.norm_after_pool):
            raise ValueError(
                f"`use_distillation_head` needs a pool of one token's width, normalised before, got "
                f"pool={self.pool!r}, norm_after_pool={self.norm_after_pool}"
            )
        if self.distillation != "none" and self.problem_type == "regression":
            raise ValueError(f"`distillation` {self.distillation!r} is not defined for problem_type='regression'")

    @property
    def num_class_tokens(self) -> int:
        """Number of leading tokens that may have a position embedding: CLS, then the distillation token."""
        return int(self.use_cls_token) + int(self.use_distillation_token)


__all__ = ["HubDeiTConfig"]
