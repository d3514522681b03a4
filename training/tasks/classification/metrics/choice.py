"""Choice of a classifier's metrics: for one label per image, or for any number of labels."""

from .multi_label import MultiLabelMetrics
from .single_label import ClassificationMetrics


def metrics_for(
    num_labels: int, multi_label: bool, process: int = 0, processes: int = 1
) -> ClassificationMetrics | MultiLabelMetrics:
    """Makes empty counts for a classification problem.

    Args:
        num_labels: Number of classes.
        multi_label: Whether an image has any number of labels.
        process: Index of this process, which gets every `processes`-th image.
        processes: Number of processes that share the images.
    """
    return MultiLabelMetrics(num_labels, process, processes) if multi_label else ClassificationMetrics(num_labels)


__all__ = ["metrics_for"]
