"""Metrics of a classifier, counted batch by batch: one label per image, or any number of them.

The classes live in the files that they are imported from; this is the one place to find them all.
"""

from .metric_classes import ImageAccuracy as ImageAccuracy
from .metric_classes import ImageCalibrationError as ImageCalibrationError
from .metric_classes import ImageMacroF1 as ImageMacroF1
from .metric_classes import ImageMeanAveragePrecision as ImageMeanAveragePrecision
from .metric_classes import ImageTop5Accuracy as ImageTop5Accuracy
from .multi_label_metrics import MultiLabelCounts as MultiLabelCounts
from .single_label_metrics import ClassificationCounts as ClassificationCounts


def counts_for(
    num_labels: int, multi_label: bool, process: int = 0, processes: int = 1
) -> ClassificationCounts | MultiLabelCounts:
    """Empty counts for a problem.

    Args:
        num_labels: Number of classes.
        multi_label: Whether an image has any number of labels.
        process: Number of this process, which is given every `processes`-th image.
        processes: How many share the images.
    """
    return MultiLabelCounts(num_labels, process, processes) if multi_label else ClassificationCounts(num_labels)


__all__ = ["counts_for"]
