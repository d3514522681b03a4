import pytest
import torch
from torch import nn
from vithub.modeling.classification_loss import distillation_loss

from vithub import HubDeiTConfig, HubDeiTForImageClassification

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 4])
SOFT = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)).softmax(-1)
TEACHER = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def make(tiny, randomised):
    return lambda **fields: randomised(HubDeiTForImageClassification(tiny(HubDeiTConfig, **fields)))


def test_at_inference_the_heads_are_averaged_and_returned(make):
    model = make(distillation="hard")
    output = model(PIXELS)
    hidden = model.deit(PIXELS).last_hidden_state
    assert torch.equal(output.cls_logits, model.classifier(hidden[:, 0]))
    assert torch.equal(output.distillation_logits, model.distillation_classifier(hidden[:, 1]))
    torch.testing.assert_close(output.logits, (output.cls_logits + output.distillation_logits) / 2)


@pytest.mark.parametrize("distillation", ["hard", "soft"])
@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["indices", "mixed"])
def test_the_loss_is_the_weighted_sum_over_the_two_heads(make, distillation, labels):
    model = make(distillation=distillation, distillation_alpha=0.3, distillation_temperature=3.0).train()
    output = model(PIXELS, labels=labels, teacher_logits=TEACHER)
    base = nn.functional.cross_entropy(output.cls_logits, labels)
    taught = distillation_loss(output.distillation_logits, model.config, TEACHER)
    torch.testing.assert_close(output.loss, 0.7 * base + 0.3 * taught)
    assert model.config.problem_type is None
    if distillation == "hard":
        decided = model(PIXELS, labels=labels, teacher_decisions=TEACHER.argmax(-1))
        torch.testing.assert_close(decided.loss, output.loss)


def test_each_head_learns_from_its_own_term(make):
    model = make(distillation="hard").train()
    model(PIXELS, labels=LABELS, teacher_logits=TEACHER).loss.backward()
    output = model(PIXELS)
    cls_gradient = (output.cls_logits.softmax(-1) - nn.functional.one_hot(LABELS, 5)).mean(0) * 0.5
    taught_gradient = (output.distillation_logits.softmax(-1) - nn.functional.one_hot(TEACHER.argmax(-1), 5)).mean(0)
    torch.testing.assert_close(model.classifier.bias.grad, cls_gradient, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.distillation_classifier.bias.grad, 0.5 * taught_gradient, atol=1e-6, rtol=1e-5)


def test_alpha_one_leaves_the_teacher_alone_to_teach(make):
    model = make(distillation="soft", distillation_alpha=1).train()
    output = model(PIXELS, labels=LABELS, teacher_logits=TEACHER)
    torch.testing.assert_close(output.loss, distillation_loss(output.distillation_logits, model.config, TEACHER))
    torch.testing.assert_close(model(PIXELS, teacher_logits=TEACHER).loss, output.loss)


def test_without_a_teacher_both_heads_learn_the_labels(make):
    model = make().train()
    output = model(PIXELS, labels=LABELS)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, LABELS))
    output.loss.backward()
    assert model.distillation_classifier.weight.grad.any()
    assert model.classifier.weight.grad.any()


def test_without_a_head_of_its_own_the_teacher_teaches_cls(make):
    model = make(distillation="soft", use_distillation_head=False, use_distillation_token=False).train()
    output = model(PIXELS, labels=LABELS, teacher_logits=TEACHER)
    assert output.distillation_logits is None
    expected = nn.functional.cross_entropy(output.logits, LABELS) / 2
    expected = expected + distillation_loss(output.logits, model.config, TEACHER) / 2
    torch.testing.assert_close(output.loss, expected)


def test_contradictions_between_model_and_call_are_refused(make):
    with pytest.raises(ValueError, match=r"config\.distillation is 'none'"):
        make()(PIXELS, labels=LABELS, teacher_logits=TEACHER)
    model = make(distillation="hard")
    with pytest.raises(ValueError, match="training with distillation='hard' needs `teacher_logits`"):
        model.train()(PIXELS, labels=LABELS)
    output = model.eval()(PIXELS, labels=LABELS)  # the validation loss of what is served
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, LABELS))


def test_distillation_teaches_the_student_the_teachers_answers(make):
    model = make(distillation="hard", distillation_alpha=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model(PIXELS, labels=LABELS, teacher_logits=TEACHER).loss.backward()
        optimizer.step()
    assert torch.equal(model.eval()(PIXELS).distillation_logits.argmax(-1), TEACHER.argmax(-1))
