"""Entry `calibration` of a run's `metrics.json`: the temperature of its classifier, and what it changes."""

from collections.abc import Mapping
from typing import Any

from .single_label import ClassificationMetrics

FITTED_ON = "validation"  # training and the reported split have no part in the fit


def calibration_facts(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Temperature fitted on the validation split, and the mean loss of each split before and after the scaling.

    Args:
        metrics: Counts of the published model by split, "validation" among them.

    Returns:
        `temperature` (None if none from 1/20 to 20 is best), `fitted_on`, `images` and `loss` by split; None if an
        image has any number of labels, to which temperature scaling is not applied.
    """
    counts = metrics[FITTED_ON]
    if not isinstance(counts, ClassificationMetrics):
        return None
    temperature = counts.temperature.fitted()
    facts = {"temperature": temperature, "fitted_on": FITTED_ON, "images": counts.images}
    if temperature is None:
        return facts
    losses = {
        name: {
            "before": found.temperature.loss(1.0, found.images),
            "after": found.temperature.loss(temperature, found.images),
        }
        for name, found in metrics.items()
    }
    return facts | {"loss": losses}


__all__ = ["FITTED_ON", "calibration_facts"]
