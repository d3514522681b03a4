"""How faithfulness is measured, all of it: two results may be compared when their protocols have the same id."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

BASELINES = ("blur", "mean")


@dataclass(frozen=True)
class FaithfulnessProtocol:
    """Every choice that a measure of faithfulness depends on, besides model, images and method.

    Args:
        version: Of what the code does; another number means another measure. Version 1 had bootstrap intervals of the
            pointing game, version 2 has Wilson's.
        baseline: What a removed patch becomes: "blur", the blurred image, or "mean", the image's mean colour.
        blur: Standard deviation of the blur, as a part of the shorter side, above 0.
        steps: Steps of the curves, a multiple of 10; both ends are measured too.
        target: The class that is explained: the "predicted" one, or the true "label".
        precision: Of the forward passes on perturbed images: "fp32" or "bf16" (autocast).
        integration_steps: Of integrated gradients.
        tolerance: Of the pointing game, in pixels: how far beside the annotation still counts.
        box_threshold: The box of a map surrounds what is above this part of its maximum, in (0, 1).
        randomised: Parts of the weights that the sanity check randomises, counted from the output, rising, in (0, 1];
            the last one decides.
        sanity_images: How many images the sanity check looks at, the first ones.
        sanity_limit: A method passes when the correlation of its maps before and after, with all its interval, lies
            below.
        bootstrap: Resamples of the intervals.
        level: Of the intervals, in (0, 1).
        seed: Of ties, random maps, randomised weights and resamples.

    Raises:
        ValueError: A value out of its range; it is named.
    """

    version: int = 2
    baseline: str = "blur"
    blur: float = 0.05
    steps: int = 10
    target: str = "predicted"
    precision: str = "fp32"
    integration_steps: int = 32
    tolerance: int = 0
    box_threshold: float = 0.2
    randomised: tuple[float, ...] = (1.0,)
    sanity_images: int = 16
    sanity_limit: float = 0.5
    bootstrap: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("version", (1, 2)),
            ("baseline", BASELINES),
            ("target", ("predicted", "label")),
            ("precision", ("fp32", "bf16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {list(allowed)}, got {getattr(self, name)!r}")
        if self.steps < 10 or self.steps % 10:
            raise ValueError(
                f"`steps` must be a multiple of 10, as perturbation is read at 10 to 90 %, got {self.steps}"
            )
        for name in ("blur", "box_threshold", "level", "sanity_limit"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)!r}")
        for name in ("integration_steps", "bootstrap"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")
        for name in ("tolerance", "sanity_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)!r}")
        shares = self.randomised
        if not shares or list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] <= 1:
            raise ValueError(f"`randomised` must be rising parts in (0, 1], got {shares!r}")

    @property
    def id(self) -> str:
        """The first 10 hexadecimal digits of SHA-256 over all fields."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON has them."""
        return {**dataclasses.asdict(self), "randomised": list(self.randomised)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FaithfulnessProtocol":
        """The protocol that `to_dict` was of."""
        return cls(**{**values, "randomised": tuple(values["randomised"])})


__all__ = ["BASELINES", "FaithfulnessProtocol"]
