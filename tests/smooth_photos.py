"""Pictures that stand for photos in tests of what looks alike."""

import numpy as np
from PIL import Image


def smooth_photo(seed, size=(72, 54)):
    """A smooth picture in colours, unlike those of other seeds even when it is scaled or compressed."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
