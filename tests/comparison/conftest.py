"""Contestants and images for the tests of comparisons."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from vithub.comparison.contestants import Contestant, family_of
from vithub.comparison.image_sample import ImageSample
from vithub.data.image_processing import PixelFormat

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="session")
def contestant():
    """Makes a contestant of a module that gives logits of five classes for images of 32 x 32."""

    def make(name, model, side=32):
        def transform(image):
            pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
            return torch.from_numpy(pixels / 255).permute(2, 0, 1) * 2 - 1

        pixels = PixelFormat((side, side), (0.5,) * 3, (0.5,) * 3)
        model = model.eval()
        family = family_of(model, torch.zeros(1, 3, side, side))
        return Contestant(name, name, "torch", family, model, pixels, transform, NAMES, lambda size: model)

    return make


@pytest.fixture(scope="session")
def sample():
    """Makes smooth random pictures, labelled at random."""

    def make(count=24, side=40, seed=0):
        draws = np.random.default_rng(seed)
        images = []
        for _ in range(count):
            coarse = Image.fromarray(draws.integers(0, 255, (6, 6, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
            images.append(Image.fromarray((smooth + draws.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)))
        labels = torch.from_numpy(draws.integers(0, 5, count))
        return ImageSample("noise", "test", images, labels, NAMES, count)

    return make


class CircularCnn(nn.Module):
    """Wraps round and pools globally: its answer does not depend on where things are."""

    def __init__(self, stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, padding_mode="circular"), nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride, padding=1, padding_mode="circular"), nn.ReLU(),
        )  # fmt: skip
        self.avgpool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 5)

    def forward(self, pixel_values):
        return 40 * self.head(self.avgpool(self.body(pixel_values)).flatten(1))


@pytest.fixture(scope="session")
def circular_cnn():
    return CircularCnn
