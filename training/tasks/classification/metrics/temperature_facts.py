"""Entry `calibration` of a run's `metrics.json`: the temperature of its classifier, and what it changes."""

from collections.abc import Mapping
from typing import Any

FITTED_ON = "validation"  # training and the reported split have no part in the fit


def calibration_facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Temperature fitted on the validation split, and the mean loss of each split before and after the scaling.

    Args:
        metrics: Counts of the published model by split, "validation" among them, of one label per image or any number.

    Returns:
        `temperature` (None if none from 1/20 to 20 is best), `fitted_on`, `images` and `loss` by split, as a mean over
        the images, or over images and labels where an image has any number of labels.
    """
    counts = metrics[FITTED_ON]
    temperature = counts.temperature.fitted()
    facts: dict[str, Any] = {"temperature": temperature, "fitted_on": FITTED_ON, "images": counts.images}
    if temperature is None:
        return facts
    losses = {
        name: {
            "before": found.temperature.loss(1.0, found.decisions),
            "after": found.temperature.loss(temperature, found.decisions),
        }
        for name, found in metrics.items()
    }
    return facts | {"loss": losses}


__all__ = ["FITTED_ON", "calibration_facts"]
