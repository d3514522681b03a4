"""Private names of libraries are where they are looked for, and one that is gone is named."""

import pytest
import torch
from torch import nn
from vithub.training.runtime.compat import ORIGINAL_FORWARD, PRIVATE_NAMES, private_name
from vithub.training.runtime.processes import new_accelerator


@pytest.mark.parametrize(("module", "name", "why"), PRIVATE_NAMES)
def test_the_library_has_the_name(module, name, why):
    assert callable(private_name(module, name)), why


def test_accelerate_keeps_the_forward_of_a_model_that_autocasts():
    model = nn.Linear(2, 2)
    new_accelerator(mixed_precision="bf16").prepare(model)
    assert ORIGINAL_FORWARD in vars(model)
    assert model(torch.ones(1, 2)).dtype == torch.float32


def test_a_name_that_is_gone_is_named_with_what_it_was_for(monkeypatch):
    monkeypatch.delattr("accelerate.utils.fsdp_utils.fsdp2_prepare_model")
    with pytest.raises(ImportError, match=r"has no fsdp2_prepare_model any more, which is needed because the EMA"):
        private_name("accelerate.utils.fsdp_utils", "fsdp2_prepare_model")
