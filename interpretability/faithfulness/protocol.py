"""Complete settings of a measurement of faithfulness; results are comparable if their protocols have the same id."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

BASELINES = ("blur", "mean")


@dataclass(frozen=True)
class FaithfulnessProtocol:
    """All settings that a measure of faithfulness depends on, besides model, images and method.

    Args:
        version: Version of the measures' definition, 1 or 2 (the default). Version 1 has bootstrap intervals for the
            pointing game, version 2 has Wilson intervals.
        baseline: Content that replaces a removed patch: "blur" (the blurred image, the default) or "mean" (the image's
            mean colour).
        blur: Standard deviation of the blur, relative to the shorter side of the image, in (0, 1).
        steps: Number of steps of a curve, a multiple of 10; both ends are measured too.
        target: Class that is explained: "predicted" (the predicted class, the default) or "label" (the true class).
        precision: Precision of the forward passes on perturbed images: "fp32" or "bf16" (autocast).
        integration_steps: Number of steps of integrated gradients, at least 1.
        tolerance: Distance from the annotation, in pixels, that still counts in the pointing game, at least 0.
        box_threshold: Share of a map's maximum above which pixels belong to the map's box, in (0, 1).
        randomised: Shares of the weight tensors that the sanity check randomises, counted from the output, rising, in
            (0, 1]; the last share decides the check.
        sanity_images: Number of images of the sanity check, which uses the first ones; 0 skips it.
        sanity_limit: Limit, in (0, 1), below which the correlation of maps before and after randomisation must lie with
            its whole interval for a method to pass.
        bootstrap: Number of bootstrap resamples for the intervals, at least 1.
        level: Confidence level of the intervals, in (0, 1).
        seed: Random seed of ties, random maps, randomised weights and resamples.

    Raises:
        ValueError: A value is out of its range; the message names the field.
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
        """Identifier of the protocol: the first 10 hexadecimal digits of the SHA-256 of all fields."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain data for JSON."""
        return {**dataclasses.asdict(self), "randomised": list(self.randomised)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FaithfulnessProtocol":
        """Protocol from the data that `to_dict` returned."""
        return cls(**{**values, "randomised": tuple(values["randomised"])})


__all__ = ["BASELINES", "FaithfulnessProtocol"]
