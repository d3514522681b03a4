"""Runtime and pictures of the tests of web pages."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_sample_images


@pytest.fixture(scope="session")
def runtime():
    """Folder with onnxruntime-web; CI names it, so that these tests are never skipped there."""
    named = os.environ.get("VITHUB_WEB_RUNTIME")
    if not named:
        assert not os.environ.get("VITHUB_NEEDS_BROWSER"), "VITHUB_WEB_RUNTIME names no folder with onnxruntime-web"
        pytest.skip("VITHUB_WEB_RUNTIME names no folder with onnxruntime-web")
    return Path(named)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of odd sizes in several formats, one of them turned by its EXIF data, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    first, second = load_sample_images().images
    for number, levels in enumerate((first, second, first[3:134, 200:637:3], second[::5, 17:30], second[:31, :45])):
        PIL.Image.fromarray(np.ascontiguousarray(levels)).save(folder / f"{number}.png")
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    PIL.Image.fromarray(second).save(folder / "5-turned.jpg", quality=95, exif=turned)
    PIL.Image.fromarray(first).convert("L").save(folder / "6-grey.webp", lossless=True)
    (folder / "7-broken.jpg").write_bytes(b"this is no picture")
    return sorted(folder.iterdir())
