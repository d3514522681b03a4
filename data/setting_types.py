"""Types of settings, probabilities and ranges, whose values are validated when they are set."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    least, most = pair
    if least > most:
        raise ValueError(f"must be the least and then the most, {least} is more than {most}")
    return pair


InOrder = AfterValidator(_in_order)
Probability = Annotated[float, Field(ge=0, le=1)]
ShareRange = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], InOrder]
# Ratios beyond these would yield crops one pixel wide or high.
_Ratio = Annotated[float, Field(ge=0.01, le=100)]
PositiveRange = Annotated[tuple[_Ratio, _Ratio], InOrder]

__all__ = ["InOrder", "PositiveRange", "Probability", "ShareRange"]
