"""Features that collapse are noticed, and a probe's neighbours judge them as a slow count does."""

import json
import logging
import math

import pytest
import torch
from datasets import Dataset, load_dataset
from matplotlib.figure import Figure
from torch import nn
from vithub.data.sources import DataError
from vithub.training.recipe.pretraining_settings import PretrainingSettings
from vithub.training.recipe.recipe import RecipeError
from vithub.training.tasks.plots import save_learning_curves
from vithub.training.tasks.pretraining.metrics import PretrainingMetrics, effective_rank
from vithub.training.tasks.pretraining.probe import Probe

import vithub


def test_the_effective_rank_is_that_of_the_singular_values():
    features = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.tensor([5.0, 3, 1, 1, 0.5, 0.1, 0.1, 0], dtype=torch.float64)
    )
    values = torch.linalg.svdvals(features).tolist()
    shares = [value / sum(values) for value in values if value > 1e-9]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(features.T @ features) == pytest.approx(expected, rel=1e-6)
    one = torch.ones(50, 1, dtype=torch.float64) @ torch.randn(1, 8, dtype=torch.float64)
    assert effective_rank(one.T @ one) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.eye(8, dtype=torch.float64)) == pytest.approx(8)
    assert effective_rank(torch.zeros(8, 8, dtype=torch.float64)) == 0


def test_parts_of_a_split_add_up_whatever_their_sizes_and_order():
    draws = torch.Generator().manual_seed(0)
    losses, features = torch.rand(30, generator=draws), torch.randn(30, 4, generator=draws)
    whole, parts = PretrainingMetrics(4), PretrainingMetrics(4)
    whole.update(losses, features)
    for rows in (range(20, 30), range(7), range(7, 20)):
        other = PretrainingMetrics(4)
        other.update(losses[list(rows)], features[list(rows)])
        own = parts.tensors()
        parts.load([one + two for one, two in zip(own, other.tensors(), strict=True)])
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-9)
    assert whole.compute()["loss"] == pytest.approx(losses.mean().item(), rel=1e-6)


def test_neighbours_vote_as_in_a_slow_count():
    draws = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 5, generator=draws), torch.randint(3, (12,), generator=draws)
    known = torch.ones(12, dtype=torch.bool)
    known[4] = False
    right = 0
    rows = [row for row in range(12) if known[row]]
    for row in rows:
        cosines = {other: float(nn.functional.cosine_similarity(features[row], features[other], dim=0))
                   for other in rows if other != row}  # fmt: skip
        votes = [0.0, 0.0, 0.0]
        for other in sorted(cosines, key=cosines.get)[-3:]:
            votes[int(labels[other])] += math.exp(cosines[other] / 0.07)
        right += votes.index(max(votes)) == int(labels[row])
    probe = Probe(Dataset.from_dict({"image": []}), labels, 3, 3)
    assert probe.accuracy(features, known) == pytest.approx(right / 11)


def test_a_run_with_a_probe_draws_k_nn_accuracy_and_rank_beside_the_loss(pretrained, digit_folders, tmp_path, caplog):
    values = {
        "training.epochs": 2,
        "training.publish": "best",
        "training.early_stop": 5,
        "pretraining.probe_images": 150,
    }
    run = pretrained(tmp_path / "run", values=values, probe=str(digit_folders))
    for entry in run.metrics["history"]:
        assert 0.1 < entry["validation_knn_accuracy"] <= 1
        assert 0 < entry["validation_effective_rank_share"] <= 1
    assert run.metrics["headline"] == "knn_accuracy"
    assert run.metrics["probe"] == {"images": 150}
    assert run.metrics["validation"]["knn_accuracy"] == max(
        entry["validation_knn_accuracy"] for entry in run.metrics["history"]
    )
    assert not [record for record in caplog.records if "collapse" in record.message]
    assert "k-NN accuracy of the features on 150 labelled images" in (run.folder / "README.md").read_text()
    without = pretrained(tmp_path / "without", values={"training.epochs": 2})
    assert without.losses == run.losses  # a probe is looked at, not learned from


def test_the_curves_hold_the_numbers_of_the_history(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    history = [
        {"epoch": n, "train_loss": 1 / n, "validation_loss": 1.1 / n, "validation_knn_accuracy": 0.2 * n, "lr": 1e-3,
         "validation_effective_rank_share": 0.3 / n, "images_per_second": 9.0, "peak_memory_mb": 5.0} for n in (1, 2, 3)
    ]  # fmt: skip
    save_learning_curves(history, tmp_path / "curves.png", "knn_accuracy")
    lines = {line.get_label(): list(line.get_ydata()) for line in drawn[0].axes[1].lines}
    assert lines["effective rank (%)"] == pytest.approx([30, 15, 10])
    assert [20, 40, 60] in [pytest.approx(values) for values in lines.values()]
    assert drawn[0].axes[1].get_ylabel() == "k-NN accuracy (%)"


@pytest.fixture
def collapsing(monkeypatch):
    """Makes backbones whose features are the same for all images, as those of a collapsed one."""

    def pool(self, hidden_states):
        return hidden_states[:, 0] * 1e-4 + 1

    monkeypatch.setattr(vithub.HubViTModel, "pool", pool)


def test_features_that_are_the_same_for_all_images_are_warned_of(collapsing, pretrained, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="vithub"):
        run = pretrained(tmp_path / "run", values={"training.epochs": 1})
    told = [record.message for record in caplog.records if record.message.startswith("the features collapse")]
    assert len(told) >= 2  # of the epoch, and of the published weights
    assert "effective rank of those of validation is 1." in told[0]
    assert run.metrics["collapsed"] is True
    assert "The features have collapsed" in (run.folder / "README.md").read_text()
    assert json.loads((run.folder / "metrics.json").read_text())["validation"]["effective_rank"] < 2


def test_a_single_image_does_not_count_as_collapsed():
    metrics = PretrainingMetrics(4)
    metrics.update(torch.ones(1), torch.randn(1, 4))
    assert not metrics.collapsed


def test_a_probe_that_cannot_judge_is_refused(digit_folders, tmp_path, multi_label_digits):
    multi_label_digits.to_parquet(tmp_path / "several.parquet")
    with pytest.raises(RecipeError, match=r"pretraining\.probe: must have one label for each image, got .*several"):
        Probe.load(PretrainingSettings(probe=str(tmp_path / "several.parquet")))
    with pytest.raises(RecipeError, match=r"probe_neighbours: must be below the 10 labelled images of .*, got 10"):
        Probe.load(PretrainingSettings(probe=str(digit_folders), probe_images=10, probe_neighbours=10))
    table = load_dataset("imagefolder", data_dir=str(digit_folders), split="train").remove_columns("label")
    table.to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="no label column"):
        Probe.load(PretrainingSettings(probe=str(tmp_path / "bare.parquet")))
    few = Probe.load(PretrainingSettings(probe=str(digit_folders), probe_images=50))
    assert len(few.labels) == 50
    assert few.classes == 10
