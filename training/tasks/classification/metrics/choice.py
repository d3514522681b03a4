"""The metrics of a classifier, counted batch by batch: one label per image, or any number of them."""

from .multi_label import MultiLabelMetrics
from .single_label import ClassificationMetrics


def metrics_for(
    num_labels: int, multi_label: bool, process: int = 0, processes: int = 1
) -> ClassificationMetrics | MultiLabelMetrics:
    """Empty counts for a problem.

    Args:
        num_labels: Number of classes.
        multi_label: Whether an image has any number of labels.
        process: Number of this process, which is given every `processes`-th image.
        processes: How many share the images.
    """
    return MultiLabelMetrics(num_labels, process, processes) if multi_label else ClassificationMetrics(num_labels)


__all__ = ["metrics_for"]
