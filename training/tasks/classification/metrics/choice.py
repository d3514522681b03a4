"""Choice of a classifier's metrics: for one label per image, or for any number of labels."""

from .multi_label import MultiLabelMetrics
from .single_label import ClassificationMetrics


def metrics_for(
    num_labels: int, multi_label: bool, process: int = 0, processes: int = 1, headline: str = "accuracy"
) -> ClassificationMetrics | MultiLabelMetrics:
    """Makes empty counts for a classification problem.

    Args:
        num_labels: Number of classes.
        multi_label: Whether an image has any number of labels.
        process: Index of this process, which gets every `processes`-th image.
        processes: Number of processes that share the images.
        headline: Metric by which evaluations of images with one label each are compared.
    """
    if multi_label:
        return MultiLabelMetrics(num_labels, process, processes)
    return ClassificationMetrics(num_labels, headline=headline)


__all__ = ["metrics_for"]
