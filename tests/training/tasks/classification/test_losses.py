from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from vithub.data.labelled.mixing import targets_from_labels
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.recipe.sections import DistillationSettings, TrainingSettings
from vithub.training.tasks.classification.losses import TrainingLoss

DRAWS = st.integers(0, 2**31)


def loss_of(training=None, distillation=None, has_token=True, multi_label=False):
    return TrainingLoss(
        TrainingSettings(**(training or {})), DistillationSettings(**(distillation or {})), has_token, multi_label
    )


def drawn(seed, batch=6, classes=5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator) * 3
    targets = torch.rand(batch, classes, generator=generator).softmax(-1)
    return logits, targets


@given(DRAWS)
def test_soft_targets_give_the_loss_of_timm(seed):
    logits, targets = drawn(seed)
    ours = loss_of().base(logits, targets)
    torch.testing.assert_close(ours, SoftTargetCrossEntropy()(logits, targets))


@given(DRAWS)
def test_binarised_targets_give_the_loss_of_timm(seed):
    logits, _ = drawn(seed)
    one_hot = targets_from_labels(torch.arange(6) % 5, 5)
    mixed = 0.7 * one_hot + 0.3 * one_hot.flip(0)
    theirs = BinaryCrossEntropy(smoothing=0.0, target_threshold=0.0)(logits, mixed)
    ours = loss_of({"loss": "bce", "label_smoothing": 0.0}).base(logits, mixed)
    torch.testing.assert_close(ours, theirs)


def test_binarised_targets_refuse_smoothing_which_would_make_all_of_them_one():
    with pytest.raises(RecipeError, match=r"training.label_smoothing must be 0 with training.loss bce.*got 0.1"):
        Recipe().with_values({"training.loss": "bce"})


@given(DRAWS)
def test_equal_parts_of_a_batch_average_to_the_gradient_of_the_whole(seed):
    logits, targets = drawn(seed, batch=8)
    teacher, _ = drawn(seed + 1, batch=8)
    for kind in ("hard", "soft"):
        loss = loss_of(distillation={"teacher": "any", "kind": kind, "temperature": 2.0})
        whole, parts = (logits.clone().requires_grad_() for _ in range(2))
        loss(
            SimpleNamespace(logits=whole, cls_logits=whole, distillation_logits=whole * 2), targets, teacher
        ).backward()
        for rows in torch.arange(8).split(2):
            part = parts[rows]
            outputs = SimpleNamespace(logits=part, cls_logits=part, distillation_logits=part * 2)
            (loss(outputs, targets[rows], teacher[rows]) / 4).backward()
        torch.testing.assert_close(parts.grad, whole.grad, atol=1e-6, rtol=0)


def test_the_token_needs_a_head():
    with pytest.raises(RecipeError, match=r"distillation.through: 'token' needs a DeiT"):
        loss_of(distillation={"teacher": "any", "through": "token"}, has_token=False)
    assert loss_of(distillation={"teacher": "any"}, has_token=False).through == "logits"
    assert loss_of(distillation={"teacher": "any"}).through == "token"
