import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import ViTConfig, ViTForImageClassification
from vithub.modeling.classification_loss import classification_loss, distillation_loss

from vithub import HubDeiTConfig, HubViTConfig, HubViTForImageClassification

SIZES = {"batch": st.integers(1, 4), "classes": st.integers(2, 6), "seed": st.integers(0, 1000)}


def slow_soft(student, teacher, tau, reduction):
    """Equation 2 of DeiT, number by number, in double precision."""
    total = 0.0
    for row_s, row_t in zip(student.tolist(), teacher.tolist(), strict=True):
        s, t = ([math.exp(v / tau) for v in row] for row in (row_s, row_t))
        for value_s, value_t in zip(s, t, strict=True):
            p = value_t / sum(t)
            total += p * (math.log(p) - math.log(value_s / sum(s)))
    return tau**2 * total / (student.numel() if reduction == "deit" else len(student))


@given(**SIZES, tau=st.floats(0.5, 5.0), reduction=st.sampled_from(["deit", "batchmean"]))
def test_soft_distillation_is_equation_two(batch, classes, seed, tau, reduction):
    student, teacher = torch.randn(2, batch, classes, generator=torch.Generator().manual_seed(seed))
    config = HubDeiTConfig(
        num_labels=classes, distillation="soft", distillation_temperature=tau, distillation_reduction=reduction
    )
    expected = slow_soft(student.double(), teacher.double(), tau, reduction)
    got = distillation_loss(student, config, teacher)
    assert got.item() == pytest.approx(expected, abs=1e-5, rel=1e-4)


@given(**SIZES)
def test_hard_distillation_is_equation_three(batch, classes, seed):
    student, teacher = torch.randn(2, batch, classes, generator=torch.Generator().manual_seed(seed))
    config = HubDeiTConfig(num_labels=classes, distillation="hard")
    decisions = [max(range(classes), key=lambda c: row[c]) for row in teacher.tolist()]
    expected = -sum(row.log_softmax(0)[d] for row, d in zip(student, decisions, strict=True)) / batch
    torch.testing.assert_close(distillation_loss(student, config, teacher), expected)
    torch.testing.assert_close(distillation_loss(student, config, teacher_decisions=torch.tensor(decisions)), expected)


def test_a_teacher_equal_to_the_student_costs_nothing_softly_and_gets_no_gradient():
    teacher = torch.randn(3, 4, requires_grad=True)
    config = HubDeiTConfig(num_labels=4, distillation="soft", distillation_temperature=3)
    student = teacher.detach().clone().requires_grad_()
    loss = distillation_loss(student, config, teacher)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    distillation_loss(student + 1.5 * torch.eye(3, 4), config, teacher).backward()
    assert teacher.grad is None


def test_with_several_labels_each_class_is_a_decision():
    student, teacher = torch.randn(2, 3, 4)
    fields = {"num_labels": 4, "problem_type": "multi_label_classification", "distillation_temperature": 2.0}
    hard = distillation_loss(student, HubDeiTConfig(distillation="hard", **fields), teacher)
    expected = nn.functional.binary_cross_entropy(student.sigmoid(), (teacher.sigmoid() > 0.5).float())
    torch.testing.assert_close(hard, expected)
    soft = distillation_loss(student, HubDeiTConfig(distillation="soft", **fields), teacher)
    expected = 4 * nn.functional.binary_cross_entropy((student / 2).sigmoid(), (teacher / 2).sigmoid())
    torch.testing.assert_close(soft, expected)


@pytest.mark.parametrize(
    ("fields", "teacher", "message"),
    [
        ({"distillation": "soft"}, {"teacher_decisions": torch.zeros(2).long()}, "`teacher_logits` are needed.*'soft'"),
        ({"distillation": "hard"}, {}, "`teacher_logits` are needed"),
        ({"distillation": "hard"}, {"teacher_logits": torch.zeros(2, 4)}, r"\(2, 3\), got \(2, 4\)"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(fields, teacher, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss(torch.zeros(2, 3), HubDeiTConfig(num_labels=3, **fields), **teacher)


@given(**SIZES)
def test_soft_labels_are_a_mean_over_hard_ones(batch, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator)
    soft = torch.rand(batch, classes, generator=generator).softmax(-1)
    config = HubViTConfig(num_labels=classes)
    by_hand = sum(
        soft[i, c] * classification_loss(logits[i : i + 1], torch.tensor([c]), config)
        for i in range(batch)
        for c in range(classes)
    )
    torch.testing.assert_close(classification_loss(logits, soft, config), by_hand / batch, atol=1e-5, rtol=1e-4)
    one_hot = nn.functional.one_hot(soft.argmax(-1), classes).float()
    torch.testing.assert_close(
        classification_loss(logits, one_hot, config), classification_loss(logits, soft.argmax(-1), config)
    )


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (3, None, torch.tensor([0, 2])),
        (3, "single_label_classification", torch.tensor([1, 1])),
        (3, "multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0]])),
        (1, None, torch.tensor([0.3, -2.0])),
        (1, "regression", torch.tensor([0.3, -2.0])),
        (2, "regression", torch.tensor([[0.3, -2.0], [1.0, 1.0]])),
    ],
)
def test_every_kind_of_problem_has_the_loss_of_transformers(tiny, num_labels, problem_type, labels):
    ours = HubViTForImageClassification(tiny(num_labels=num_labels, problem_type=problem_type)).eval()
    native_config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=num_labels, problem_type=problem_type
    )
    native = ViTForImageClassification(native_config)
    output = ours(torch.randn(2, 3, 32, 32), labels=labels)
    expected = native.loss_function(labels, output.logits, native_config)
    torch.testing.assert_close(output.loss, expected)
    assert ours.config.problem_type == problem_type


def test_float_labels_never_change_the_problem(tiny):
    model = HubViTForImageClassification(tiny())
    model(torch.randn(2, 3, 32, 32), labels=torch.full((2, 5), 0.2))
    assert model.config.problem_type is None


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [(None, torch.rand(2, 4)), (None, torch.rand(2)), ("multi_label_classification", torch.tensor([0, 1]))],
)
def test_labels_of_another_shape_are_refused(problem_type, labels):
    with pytest.raises(ValueError, match=r"`labels` must.*\(2, 3\), got"):
        classification_loss(torch.zeros(2, 3), labels, HubViTConfig(num_labels=3, problem_type=problem_type))
