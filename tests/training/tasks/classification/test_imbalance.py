"""Class weights, focal loss, logit adjustment and the balanced order, each against another way to compute it."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss
from vithub.data.digits import digits_dataset
from vithub.data.labelled.mixing import targets_from_labels
from vithub.data.samplers import BalancedOrder, MicroBatches
from vithub.training.finetuning import finetune
from vithub.training.recipe.class_weights import read_class_weights
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.recipe.sections import DistillationSettings, TrainingSettings
from vithub.training.tasks.classification.imbalance import ClassBalance
from vithub.training.tasks.classification.losses import TrainingLoss

DRAWS = st.integers(0, 2**31)
COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=7)


def loss_of(weights=None, prior=None, multi_label=False, **training):
    settings = TrainingSettings(**{"label_smoothing": 0.0} | training)
    return TrainingLoss(settings, DistillationSettings(), False, multi_label, weights, prior)


def balance_of(values, names="abc", counts=(5, 50, 500), images=555, multi_label=False):
    return ClassBalance(Recipe().with_values(values), list(names), counts, images, multi_label)


def drawn(seed, batch=8, classes=5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator) * 3
    labels = torch.randint(classes, (batch,), generator=generator)
    weights = torch.rand(classes, generator=generator) * 4
    return logits, labels, weights


@given(DRAWS)
def test_weights_of_plain_labels_give_torchs_weighted_loss(seed):
    logits, labels, weights = drawn(seed)
    ours = loss_of(weights.tolist()).base(logits, targets_from_labels(labels, 5))
    theirs = torch.nn.functional.cross_entropy(logits, labels, weights, reduction="none").mean()
    torch.testing.assert_close(ours, theirs)


@given(DRAWS, st.floats(0, 0.5))
def test_smoothing_does_not_change_the_weight_of_an_image(seed, smoothing):
    logits, labels, weights = drawn(seed)
    targets = targets_from_labels(labels, 5, smoothing)
    ours = loss_of(weights.tolist(), label_smoothing=smoothing).base(logits, targets)
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(ours, (plain * weights[labels]).mean(), atol=1e-5, rtol=1e-5)


@given(DRAWS)
def test_equal_weights_change_nothing(seed):
    logits, labels, _ = drawn(seed)
    targets = targets_from_labels(labels, 5, 0.1)
    for kind, smoothing in (("cross_entropy", 0.1), ("focal", 0.1), ("bce", 0.0)):
        weighted = loss_of([1.0] * 5, loss=kind, label_smoothing=smoothing)
        plain = loss_of(loss=kind, label_smoothing=smoothing)
        torch.testing.assert_close(weighted.base(logits, targets), plain.base(logits, targets))


@given(DRAWS)
def test_equal_parts_of_a_weighted_batch_average_to_the_whole(seed):
    logits, labels, weights = drawn(seed)
    for kind in ("cross_entropy", "focal", "bce"):
        loss = loss_of(weights.tolist(), loss=kind)
        targets = targets_from_labels(labels, 5)
        parts = [loss(SimpleNamespace(logits=logits[rows]), targets[rows]) for rows in torch.arange(8).split(2)]
        torch.testing.assert_close(torch.stack(parts).mean(), loss.base(logits, targets))


@given(DRAWS, st.floats(0, 5))
def test_the_focal_loss_of_one_label_is_that_of_the_papers_equation(seed, gamma):
    logits, labels, _ = drawn(seed)
    probability = logits.double().softmax(-1).gather(1, labels[:, None])[:, 0]
    expected = (-((1 - probability) ** gamma) * probability.log()).mean().float()
    ours = loss_of(loss="focal", focal_gamma=gamma).base(logits, targets_from_labels(labels, 5))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


@given(DRAWS, st.floats(0, 5))
def test_the_focal_loss_of_several_labels_is_torchvisions(seed, gamma):
    logits, _, _ = drawn(seed)
    targets = (logits.roll(1, 0) > 0).float()
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma, reduction="mean")
    ours = loss_of(multi_label=True, loss="focal", focal_gamma=gamma).base(logits, targets)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_of_a_sure_image_has_a_gradient(gamma):
    for multi_label in (False, True):
        logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
        loss = loss_of(multi_label=multi_label, loss="focal", focal_gamma=gamma)
        loss.base(logits, torch.tensor([[1.0, 0.0]])).backward()
        assert torch.isfinite(logits.grad).all()


def test_weights_of_several_labels_are_those_of_the_positive_terms():
    logits, _, weights = drawn(3)
    targets = (logits.roll(1, 0) > 0).float()
    terms = -(weights * targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log())
    ours = loss_of(weights.tolist(), multi_label=True).base(logits, targets)
    torch.testing.assert_close(ours, terms.mean(), atol=1e-5, rtol=1e-5)


@given(COUNTS)
def test_balanced_weights_make_each_class_count_alike_and_the_mean_image_one(counts):
    for setting, power in (("balanced", 1.0), ("sqrt", 0.5)):
        balance = balance_of({"training.class_weights": setting}, range(len(counts)), counts, sum(counts))
        totals = np.array(counts) * np.array(balance.weights)
        np.testing.assert_allclose(totals.sum(), sum(counts))
        np.testing.assert_allclose(totals / np.array(counts) ** (1 - power), totals[0] / counts[0] ** (1 - power))


def test_logit_adjustment_gives_the_loss_of_logits_shifted_by_the_shares():
    balance = balance_of({"training.logit_adjustment": 2.0})
    logits, labels, _ = drawn(0, classes=3)
    labels %= 3
    shifted = logits + 2 * (torch.tensor([5.0, 50.0, 500.0]) / 555).log()
    ours = loss_of(prior=balance.prior).base(logits, targets_from_labels(labels, 3))
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(shifted, labels))


@given(COUNTS, DRAWS)
def test_the_balanced_order_draws_classes_and_their_images_evenly(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = BalancedOrder(labels, batch_size=1, seed=seed)
    rows = [key.index for step in range(order.steps_per_epoch) for key in order.batch(step)]
    drawn = np.bincount(rows, minlength=len(labels))
    by_class = np.bincount(labels, weights=drawn)
    assert by_class.sum() == len(labels)
    assert by_class.max() - by_class.min() <= 1
    for number in range(len(counts)):
        assert np.ptp(drawn[labels == number]) <= 1


def test_the_balanced_order_depends_on_seed_and_step_alone():
    labels = [0] * 30 + [1] * 3
    whole = list(MicroBatches(BalancedOrder(labels, 8, seed=1), 0, 12))
    assert list(MicroBatches(BalancedOrder(labels, 8, seed=1), 7, 12)) == whole[7:]  # in the second epoch
    parts = [list(MicroBatches(BalancedOrder(labels, 8, seed=1), 0, 12, 2, process, 2)) for process in range(2)]
    joined = [[key for piece in range(2) for part in parts for key in part[2 * step + piece]] for step in range(12)]
    assert joined == whole
    first, second = ({key.index for batch in whole[four] for key in batch} for four in (slice(0, 4), slice(4, 8)))
    assert first != second
    assert list(MicroBatches(BalancedOrder(labels, 8, seed=2), 0, 12)) != whole


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        ({"training.class_weights": {"a": 1, "b": 2}}, {}, "training.class_weights has no weight for c"),
        ({"training.class_weights": dict.fromkeys("abcd", 1)}, {}, "weighs d; the labels of the data are a, b, c"),
        ({"training.class_weights": "balanced"}, {"counts": None}, "'balanced' needs the number of images"),
        ({"training.logit_adjustment": 1.0}, {"counts": None}, "logit_adjustment 1.0 needs the number of images"),
        ({"training.logit_adjustment": 1.0}, {"multi_label": True}, "logit_adjustment is for images with one label"),
        ({"data.sampler": "balanced"}, {"multi_label": True}, "data.sampler is for images with one label"),
        ({"evaluation.headline": "macro_f1"}, {"multi_label": True}, "evaluation.headline is for images with one"),
    ],
)
def test_answers_that_do_not_fit_the_data_are_named(values, more, message):
    with pytest.raises(RecipeError, match=message):
        balance_of(values, **more)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.class_weights": "even"}, "class_weights: must be balanced, sqrt, or a weight for each label, got"),
        ({"training.class_weights": {"a": -1}}, "weight of label 'a' must be a number from 0"),
        ({"training.class_weights": {"a": True}}, "weight of label 'a' must be a number from 0"),
        ({"training.class_weights": {"a": 0.0}}, "above 0 for at least one label"),
        ({"training.class_weights": "sqrt", "data.sampler": "balanced"}, "which balances already, got sqrt"),
        ({"training.class_weights": "sqrt", "training.logit_adjustment": 1.0}, "which balances already, got sqrt"),
        (
            {"training.logit_adjustment": 1.0, "training.loss": "focal"},
            "training.loss must be cross_entropy, got focal",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(values, message):
    with pytest.raises(RecipeError, match=message):
        Recipe().with_values(values)


def test_weights_of_a_recipe_come_back_from_its_file(tmp_path):
    recipe = Recipe().with_values({"training.class_weights": {0: 2, "no": 0.5}})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.from_yaml(tmp_path / "recipe.yaml").training.class_weights == {"0": 2.0, "no": 0.5}


@pytest.mark.parametrize(
    ("name", "text"),
    [("w.json", '{"a": 2, "b": 0.5}'), ("w.yaml", "a: 2\nb: 5e-1\n"), ("w.csv", "label,weight\na,2\nb,0.5\n")],
)
def test_weights_are_read_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_weights(tmp_path / name) == {"a": 2, "b": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.csv", "label,weight\na,heavy\n", "line 2: the weight of 'a' must be a number, got 'heavy'"),
        ("w.csv", "label,weight\na,1\na,2\n", "line 3: the label 'a' was there before"),
        ("w.csv", "name,weight\n", "must have the columns label and weight, got name, weight"),
        ("w.yaml", "[1, 2]", "must map labels to weights, got list"),
        ("w.json", "{", "holds no readable class weights"),
        (None, "", "must be balanced, sqrt or a file of weights by label, got"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(tmp_path, name, text, message):
    if name is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_class_weights(tmp_path / (name or "missing.csv"))
    assert (name or "missing.csv") in str(caught.value)


@pytest.fixture(scope="module")
def long_tailed():
    """Digits 0 to 2 with 90, 30 and 4 training images."""
    digits = digits_dataset()
    labels = np.asarray(digits["label"])
    digits = digits.select([row for number in range(3) for row in np.flatnonzero(labels == number)])
    labels = np.asarray(digits["label"])
    parts = {"train": (90, 30, 4), "validation": (12, 12, 12)}
    found, used = {}, np.zeros(3, dtype=int)
    for split, counts in parts.items():
        rows = [row for c, n in enumerate(counts) for row in np.flatnonzero(labels == c)[used[c] : used[c] + n]]
        used += counts
        found[split] = digits.select(rows).cast_column("label", ClassLabel(names=list("012")))
    return DatasetDict(found)


@pytest.fixture(scope="module")
def unanswered(long_tailed, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unanswered") / "run"
    values = quick({"training.epochs": 2, "training.publish": "best"})
    del values["data.test_fraction"]
    with pytest.MonkeyPatch.context() as patch:
        warned = []
        patch.setattr(logging.getLogger("vithub"), "warning", lambda text, *args: warned.append(text % args))
        run = finetune(data=long_tailed, output=folder, preset="digits", values=values)
    return run, warned


def test_imbalance_without_an_answer_is_warned_of_with_the_counts(unanswered):
    _, warned = unanswered
    assert warned == [
        "imbalanced classes: 2 4 training images, against 90 of 0, and nothing is done about it; "
        "class_weights='balanced' or sampler='balanced' or values={'training.logit_adjustment': 1.0} may help"
    ]


def test_imbalanced_runs_are_judged_by_macro_f1_and_their_cards_begin_with_each_class(unanswered):
    run, _ = unanswered
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["headline"] == "macro_f1"
    best = max(metrics["history"], key=lambda entry: entry["validation_macro_f1"])
    assert metrics["validation"]["macro_f1"] == pytest.approx(best["validation_macro_f1"])
    card = (run.folder / "README.md").read_text()
    top = card[: card.index("## Use")]
    assert top.index("macro F1 |") < top.index("| accuracy |")
    assert "90 training images of 0, 4 of 2. Nothing was done about it" in top
    assert "| 2 | 4 | 12 |" in top
    assert "which had the best validation macro F1" in card


def test_weights_go_into_recipe_metrics_and_card(long_tailed, quick, tmp_path):
    (tmp_path / "weights.csv").write_text("label,weight\n0,0.5\n1,1\n2,8\n")
    values = quick({"training.epochs": 1})
    del values["data.test_fraction"]
    run = finetune(
        data=long_tailed, output=tmp_path / "run", preset="digits", values=values,
        class_weights=tmp_path / "weights.csv",
    )  # fmt: skip
    weights = {"0": 0.5, "1": 1.0, "2": 8.0}
    assert Recipe.from_yaml(run.folder / "recipe.yaml").training.class_weights == weights
    assert run.metrics["data"]["imbalance"]["class_weights"] == weights
    assert "| 2 | 4 | 8 | 12 |" in (run.folder / "README.md").read_text()
