import json
import shutil

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from vithub.training.finetuning import finetune

import vithub

WEIGHTS = "model.safetensors"


def weights(folder):
    return (folder / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def plain_run(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "plain")


def test_a_run_leaves_every_file_of_the_design(finished_run):
    folder = finished_run.folder
    files = {"config.json", WEIGHTS, "preprocessor_config.json", "README.md", "recipe.yaml", "metrics.json"}
    assert files | {"learning_curves.png", "confusion_matrix.png", "checkpoints"} <= {p.name for p in folder.iterdir()}
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".eval_results"]
    for picture in folder.glob("*.png"):
        with Image.open(picture) as opened:
            opened.verify()


def test_what_is_published_is_what_was_trained_and_nothing_else(finished_run):
    stored = load_file(finished_run.folder / WEIGHTS)
    state = finished_run.model.state_dict()
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], state[name]) for name in state)
    assert not finished_run.model.training


def test_metrics_tell_the_run(finished_run):
    metrics = json.loads((finished_run.folder / "metrics.json").read_text())
    assert metrics == finished_run.metrics
    assert metrics["reported_split"] == "test"
    assert metrics["data"]["sizes"] == {"train": 280, "validation": 40, "test": 80}
    assert [entry["epoch"] for entry in metrics["history"]] == list(range(1, 11))
    assert [entry["step"] for entry in metrics["history"]] == list(range(7, 71, 7))
    seconds = [0.0, *(entry["seconds"] for entry in metrics["history"])]
    assert seconds == sorted(set(seconds))
    assert seconds[-1] <= metrics["seconds"] + 0.05  # which is rounded, and has the last checkpoint too
    assert metrics["parameters"] == sum(p.numel() for p in finished_run.model.parameters())
    assert sum(map(sum, metrics["confusion"])) == 80
    right = sum(row[number] for number, row in enumerate(metrics["confusion"]))
    assert metrics["test"]["accuracy"] == right / 80
    assert metrics["test"]["accuracy"] > 0.3  # it has learned: chance is 0.1
    assert metrics["precision"] == "fp32"
    assert metrics["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_best_epoch_is_published(finished_run):
    history, epoch = finished_run.metrics["history"], finished_run.metrics["published_epoch"]
    best = max(history, key=lambda entry: (entry["validation_accuracy"], -entry["validation_loss"]))
    assert epoch == best["epoch"]
    assert finished_run.metrics["validation"]["accuracy"] == best["validation_accuracy"]
    assert finished_run.metrics["validation"]["loss"] == pytest.approx(best["validation_loss"], rel=1e-6)


def test_the_last_epoch_is_published_when_asked(finished_run, train, tmp_path):
    # a rate this high has its best epoch before the last
    run = train(tmp_path / "run", {"training.publish": "last", "training.epochs": 3, "training.lr": 0.5})
    assert run.metrics["published_epoch"] == 3
    (last,) = (tmp_path / "run" / "checkpoints").glob("*21")
    assert weights(tmp_path / "run") == (last / WEIGHTS).read_bytes() or all(
        torch.equal(load_file(last / WEIGHTS)[name], tensor) for name, tensor in run.model.state_dict().items()
    )


def test_the_same_seed_gives_the_same_weights_bit_for_bit(plain_run, train, tmp_path):
    torch.rand(7)  # draws of the caller do not matter
    again = train(tmp_path / "again")
    assert again.losses == plain_run.losses
    assert weights(again.folder) == weights(plain_run.folder)
    assert again.metrics["test"] == plain_run.metrics["test"]


def test_another_seed_gives_other_weights_but_the_same_splits(plain_run, train, tmp_path):
    other = train(tmp_path / "other", {"training.epochs": 1}, seed=1)
    assert other.losses != plain_run.losses[:7]
    assert weights(other.folder) != weights(plain_run.folder)
    images = [[row["images"] for row in vithub.evaluate(run.folder)["per_class"]] for run in (other, plain_run)]
    assert images[0] == images[1]


def test_loading_processes_change_nothing(plain_run, losses_of):
    assert losses_of(14, {"data.workers": 2}) == plain_run.losses


EVERYTHING_RANDOM = {
    "model.fields": {
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1,
        "drop_path_rate": 0.3,
    },
    "augmentation.mixup": 0.8,
    "augmentation.cutmix": 1.0,
    "augmentation.random_erasing": 0.25,
    "augmentation.repeats": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def random_run(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "random", EVERYTHING_RANDOM)


def test_a_batch_in_four_pieces_gives_the_same_losses_as_in_one(random_run, losses_of):
    pieces = losses_of(14, EVERYTHING_RANDOM | {"training.accumulation": 4})
    assert pieces == pytest.approx(random_run.losses, abs=1e-6, rel=0)


@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"])
def test_dropout_in_four_pieces_gives_the_same_losses_as_in_one(name, quick, losses_of):
    values = {"model.fields": quick()["model.fields"] | {name: 0.2, "drop_path_rate": 0.3}}
    whole = losses_of(3, values)
    assert losses_of(3, values | {"training.accumulation": 4}) == pytest.approx(whole, abs=1e-6, rel=0)
    without = losses_of(3, {"model.fields": quick()["model.fields"] | {"drop_path_rate": 0.3}})
    assert whole != pytest.approx(without, abs=1e-4, rel=0)


@pytest.mark.parametrize("broken_at", [1, 9])
def test_a_run_broken_off_between_two_steps_goes_on_as_if_nothing_had_happened(
    broken_at, random_run, train, listener, tmp_path
):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", EVERYTHING_RANDOM, reporter=listener(broken_at))
    told = listener()
    resumed = train(tmp_path / "run", EVERYTHING_RANDOM, resume=True, reporter=told)
    assert weights(resumed.folder) == weights(random_run.folder)
    assert resumed.losses == random_run.losses[-len(resumed.losses) :]
    assert len(resumed.losses) == (14 if broken_at == 1 else 7)
    assert any("resum" in text and "step 7 " in text for text in told.messages) == (broken_at == 9)
    assert resumed.metrics["test"] == random_run.metrics["test"]
    same = ("epoch", "step", "train_loss", "validation_loss", "validation_accuracy", "lr")
    histories = [[[e[name] for name in same] for e in run.metrics["history"]] for run in (resumed, random_run)]
    assert histories[0] == histories[1]


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(plain_run, train, tmp_path):
    folder = shutil.copytree(plain_run.folder, tmp_path / "run")
    again = train(folder, resume=True)
    assert again.losses == []
    assert weights(folder) == weights(plain_run.folder)
    assert again.metrics["test"] == plain_run.metrics["test"]


def test_a_recipe_file_repeats_its_run_bit_for_bit(plain_run, tmp_path):
    again = finetune(recipe=plain_run.folder / "recipe.yaml", output=tmp_path / "again")
    assert weights(again.folder) == weights(plain_run.folder)
    assert (again.folder / "recipe.yaml").read_text() == (plain_run.folder / "recipe.yaml").read_text()


def test_the_saved_recipe_states_what_was_done(plain_run, digit_folders, quick):
    saved = yaml.safe_load((plain_run.folder / "recipe.yaml").read_text())
    assert saved["data"]["source"] == str(digit_folders)
    assert saved["training"]["lr"] == quick()["training.lr"]
    assert saved["model"]["fields"] == quick()["model.fields"]


def test_training_stops_early_when_nothing_gets_better(train, tmp_path):
    # at this rate nothing is learned, so that the first epoch stays the best
    values = {"training.epochs": 12, "training.early_stop": 2, "training.lr": 1e-12, "training.min_lr": 0}
    run = train(tmp_path / "run", values | {"training.warmup_lr": 0})
    assert run.metrics["published_epoch"] + 2 == len(run.metrics["history"]) < 12


def test_a_loss_that_is_no_number_stops_the_run_and_tells_where(train, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)loss of step \d+ .*(nan|inf).*learning rate of .*checkpoint is"):
        train(tmp_path / "run", {"training.lr": 1e30, "training.epochs": 3, "training.warmup": 0})
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_mixing_ends_at_its_epoch_and_changes_nothing_with_probability_zero(plain_run, losses_of):
    both = {"augmentation.mixup": 0.8, "augmentation.cutmix": 1.0}
    assert losses_of(14, both | {"augmentation.mix_probability": 0.0}) == plain_run.losses
    throughout = losses_of(9, both)
    one_epoch = losses_of(9, both | {"augmentation.mix_off_epoch": 1})
    assert one_epoch[:7] == throughout[:7] != plain_run.losses[:7]
    assert one_epoch[7:] != throughout[7:]


def test_several_labels_per_image_are_learned(multi_label_run):
    config, metrics = multi_label_run.model.config, multi_label_run.metrics
    assert config.problem_type == "multi_label_classification"
    assert set(config.label2id) == {"even", "large", "round"}
    assert metrics["history"][-1]["validation_loss"] < metrics["history"][0]["validation_loss"] < 1
    assert all(0 <= value <= 1 for name, value in metrics["test"].items() if name != "loss")
    with pytest.raises(ValueError, match="must have the shape of the logits"):  # no softmax over them
        multi_label_run.model(pixel_values=torch.zeros(1, 3, 12, 12), labels=torch.tensor([1]))


def test_a_run_can_begin_from_the_folder_of_another(finished_run, digit_folders, train, tmp_path):
    standing_still = {"training.lr": 1e-12, "training.min_lr": 0, "training.warmup_lr": 0, "training.epochs": 1}
    values = {"model.source": str(finished_run.folder), "model.image_size": None, "model.fields": {}}
    again = train(tmp_path / "again", standing_still | values)
    assert again.metrics["test"]["accuracy"] == finished_run.metrics["test"]["accuracy"]
    assert again.metrics["test"]["loss"] == pytest.approx(finished_run.metrics["test"]["loss"], rel=1e-6)


def test_pictures_that_are_not_square_are_seen_as_they_are_evaluated(train, tmp_path):
    run = train(tmp_path / "run", {"model.image_size": (8, 16), "training.epochs": 1})
    assert run.model.config.image_hw == (8, 16)
    assert vithub.evaluate(run.folder)["metrics"] == pytest.approx(run.metrics["test"])
