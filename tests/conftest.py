"""Settings and fixtures that all tests share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"

from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import settings

import vithub

transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # the tests run in parallel

settings.register_profile("vithub", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("vithub")

# Sizes of a model that computes in milliseconds: 4 x 4 patches of 8 x 8 pixels.
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}


@pytest.fixture
def tiny():
    """Makes a tiny configuration: `tiny()` of a ViT, `tiny(vithub.HubDeiTConfig, distillation="hard")` of a DeiT."""

    def make(config_class=vithub.HubViTConfig, **fields):
        return config_class(**{**TINY, **fields})

    return make


@pytest.fixture
def randomised():
    """Moves every parameter (and position table) away from its start, so that none is hidden by being 0 or 1."""

    def make(model, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def real_files():
    """The folder of real data sets and weights that `VITHUB_TEST_DATA` names; without it the test is skipped."""
    named = os.environ.get("VITHUB_TEST_DATA")
    if not named:
        pytest.skip("VITHUB_TEST_DATA names no folder with real data sets and weights")
    folder = Path(named)
    assert (folder / "weights").is_dir(), f"VITHUB_TEST_DATA={folder} has no folder weights"
    assert (folder / "data").is_dir(), f"VITHUB_TEST_DATA={folder} has no folder data"
    return folder
