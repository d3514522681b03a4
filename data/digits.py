"""Offline data set: 1,797 handwritten digits of 8 x 8 pixels, which ship with scikit-learn."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from sklearn.datasets import load_digits


def digits_dataset() -> Dataset:
    """All digits in their published order: `image` (8 x 8, greyscale as PNG) and `label` (0 to 9).

    The images are the test part of the UCI set of handwritten digits (Alpaydin & Kaynak 1998), 16 grey levels.
    """
    digits = load_digits()
    images = (digits.images * 255 / 16).round().astype(np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return Dataset.from_dict({"image": list(images), "label": digits.target.tolist()}, features=features)


__all__ = ["digits_dataset"]
