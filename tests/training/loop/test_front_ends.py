import pytest
import torch
from patience import LONG
from safetensors.torch import load_file
from vithub.training import finetuning
from vithub.training.loop.trainer import HubTrainer

RICH = {
    "model.fields": {
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1,
        "drop_path_rate": 0.2,
    },
    "augmentation.mixup": 0.8,
    "augmentation.cutmix": 1.0,
    "training.accumulation": 4,
    "training.clip_norm": 0.5,
    "training.layer_decay": 0.7,
    "training.ema_decay": 0.9,
    "training.checkpoint_steps": 3,
}  # fmt: skip
OTHERS = [
    {"training.optimizer": "sgd", "training.schedule": "linear", "training.lr": 0.05},
    {"training.optimizer": "lamb", "training.loss": "bce", "training.label_smoothing": 0.0},
    {"training.precision": "bf16", "training.schedule": "step", "training.step_epochs": 1},
]


def same(one, other):
    files = [load_file(run.folder / "model.safetensors") for run in (one, other)]
    return files[0].keys() == files[1].keys() and all(torch.equal(files[0][name], files[1][name]) for name in files[0])


@pytest.fixture(scope="module")
def rich(train, tmp_path_factory):
    """The unbroken run of `RICH` on the accelerate loop; tests read its folder and do not write to it."""
    return train(tmp_path_factory.mktemp("runs") / "rich", RICH)


@pytest.mark.parametrize("values", [RICH, *OTHERS], ids=["rich", "sgd", "lamb", "bf16"])
def test_trainer_gives_the_losses_and_the_weights_of_the_accelerate_loop(train, rich, tmp_path, values):
    accelerate = rich if values is RICH else train(tmp_path / "accelerate", values)
    trainer = train(tmp_path / "trainer", values, front_end="trainer")
    assert trainer.losses == accelerate.losses
    assert same(trainer, accelerate)
    assert trainer.metrics["test"] == accelerate.metrics["test"]
    assert trainer.metrics["front_end"] == "trainer"
    assert {p.name for p in trainer.folder.iterdir()} == {p.name for p in accelerate.folder.iterdir()}
    assert not [path for path in trainer.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_a_cache_of_decoded_images_and_loading_processes_change_no_number(train, tmp_path):
    values = {"augmentation.color_jitter": 0.3, "augmentation.random_erasing": 0.5, "augmentation.vertical_flip": 0.5}
    plain = train(tmp_path / "plain", values)
    cached = train(tmp_path / "cached", values | {"data.cache": "memory", "data.workers": 2})
    assert cached.losses == plain.losses
    assert same(cached, plain)
    assert cached.metrics["test"] == plain.metrics["test"]


# Each front end writes and reads a checkpoint, one within an epoch and one at its end. That each goes on with its own
# at any moment is in test_seeded_kills.
@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [
        ("accelerate", "trainer", 3),
        ("trainer", "accelerate", 7),
        *([("trainer", "accelerate", 3), ("accelerate", "trainer", 7)] if LONG else []),
    ],
)
def test_a_run_of_one_front_end_goes_on_in_the_other(train, rich, listener, tmp_path, first, second, steps):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", RICH, front_end=first, reporter=listener(steps + 1))
    resumed = train(tmp_path / "run", RICH, front_end=second, resume=True)
    assert resumed.losses == rich.losses[steps:]
    assert same(resumed, rich)
    history = [
        {key: value for key, value in entry.items() if not key.startswith(("images", "waited", "peak", "seconds"))}
        for entry in resumed.metrics["history"]
    ]
    assert history == [{key: entry[key] for key in history[0]} for entry in rich.metrics["history"]]


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_loss_that_is_not_finite_stops_or_is_left_out(train, tmp_path, front_end, monkeypatch):
    from vithub.training.loop.step import NonFiniteLossError
    from vithub.training.tasks.classification.losses import TrainingLoss

    whole, calls = TrainingLoss.base, []

    def broken_in_the_third_step(self, logits, targets):
        calls.append(1)
        return whole(self, logits, targets) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(TrainingLoss, "base", broken_in_the_third_step)
    expected = r"step 2 is nan at a learning rate of .*; its images: .*\.png \(row \d+ of split 'train'\).* is none"
    with pytest.raises(NonFiniteLossError, match=expected):
        train(tmp_path / "stops", front_end=front_end)
    calls.clear()
    run = train(tmp_path / "goes on", {"training.on_nonfinite": "skip"}, front_end=front_end)
    assert run.metrics["skipped_steps"] == [2]
    assert all(torch.isfinite(tensor).all() for tensor in run.model.state_dict().values())
    finite = [loss for number, loss in enumerate(run.losses[:7]) if number != 2]
    assert run.metrics["history"][0]["train_loss"] == pytest.approx(sum(finite) / 6)


@pytest.mark.parametrize("optimizer", ["lamb", "muon", "sgd"])
def test_every_optimizer_goes_on_where_it_was_broken_off(train, listener, tmp_path, optimizer):
    values = {"training.optimizer": optimizer, "training.epochs": 2}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", values, reporter=listener(9))
    resumed = train(tmp_path / "run", values, resume=True)
    whole = train(tmp_path / "whole", values)
    assert resumed.losses == whole.losses[7:]
    assert same(resumed, whole)


def test_the_trainer_writes_the_runs_own_card_and_publishes_its_folder(train, tmp_path, monkeypatch):
    made = []

    class Kept(HubTrainer):
        def __init__(self, *args):
            made.append(self)
            super().__init__(*args)
            with pytest.raises(FileNotFoundError, match=r"has no metrics\.json yet"):
                self.create_model_card()

    monkeypatch.setattr(finetuning, "HubTrainer", Kept)
    folder = train(tmp_path / "run", front_end="trainer").folder
    card = folder / "README.md"
    written = card.read_bytes()
    card.unlink()
    made[0].create_model_card(tags=["thin"], model_name="thin")
    assert card.read_bytes() == written
    for bundle in (False, True):
        report = made[0].push_to_hub("Say it", repo_id="user/digits", dry_run=True, bundle=bundle)
        sent = {file.path for file in report.sent}
        assert {"README.md", "model.safetensors", "metrics.json"} <= sent
        assert ("modeling_deit.py" in sent) == bundle
        assert not [path for path in sent if path.startswith(("checkpoints", "logs"))]
    with pytest.raises(ValueError, match="`repo_id` is missing"):
        made[0].push_to_hub()
