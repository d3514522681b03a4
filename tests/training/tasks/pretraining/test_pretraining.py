"""Pretraining runs: what is trained, resumed, shared out and published, and what the backbone is good for."""

import json
import math
import shutil

import processes
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel
from vithub.data.image_processing import build_image_processor
from vithub.data.sources import DataError
from vithub.training.recipe.recipe import RecipeError

import vithub

METHODS = ["mae", "simmim", "dino", "features"]
# Every kind of state that a run has: an average, checkpoints within an epoch, several parts, stochastic depth, dropout.
RICH = {
    "model.fields": {
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1,
        "drop_path_rate": 0.2, "hidden_dropout_prob": 0.1,
    },
    "training.accumulation": 2,
    "training.ema_decay": 0.9,
    "training.checkpoint_steps": 3,
    "training.clip_norm": 1.0,
    "evaluation.batch_size": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Arguments of `pretrain` by method: a teacher for features."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    config = vithub.HubViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    vithub.HubViTModel(config).save_pretrained(folder)
    build_image_processor((16, 16)).save_pretrained(folder)
    return {"features": {"teacher": str(folder)}}


@pytest.fixture(scope="module", params=["mae", "dino"])
def run(request, pretrained, tmp_path_factory):
    """A run of six epochs of a method with a decoder, and of one that publishes its teacher."""
    values = {"training.epochs": 6} | ({"pretraining.masked_weight": 0.0} if request.param == "dino" else {})
    return pretrained(tmp_path_factory.mktemp("runs") / "run", request.param, values)


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def rich(pretrained, method, options, tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("runs") / "rich", method, RICH, **options.get(method, {}))


def same(one, other):
    files = [load_file(folder / "model.safetensors") for folder in (one, other)]
    return files[0].keys() == files[1].keys() and all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_the_backbone_that_has_learned_is_published_alone(run):
    losses = [entry["validation_loss"] for entry in run.metrics["history"]]
    last = load_file(sorted((run.folder / "checkpoints").glob("step-*"))[-1] / "model.safetensors")
    if run.metrics["pretraining"]["method"] == "mae":
        assert losses[-1] < 0.97 * losses[0]
        learned = "vit"
    else:  # the teacher's loss moves with the teacher, which is what is published
        assert all(math.isfinite(loss) for loss in losses)
        learned = "teacher"
    assert run.metrics["problem"] == "pretraining"
    rank, share = (run.metrics["test"][name] for name in ("effective_rank", "effective_rank_share"))
    assert 1 <= rank <= 32
    assert share == pytest.approx(rank / 32)
    stored = load_file(run.folder / "model.safetensors")
    assert set(stored) == set(vithub.HubViTModel(run.model.config).state_dict())
    assert all(torch.equal(tensor, last[f"{learned}.{name}"]) for name, tensor in stored.items())
    assert len(last) > len(stored)


def test_it_loads_as_any_backbone_and_its_card_tells_how_it_was_made(run):
    model, processor = AutoModel.from_pretrained(run.folder), AutoImageProcessor.from_pretrained(run.folder)
    pixels = processor(Image.new("RGB", (20, 20)), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert torch.equal(model(pixels).pooler_output, run.model(pixels).pooler_output)
    card = (run.folder / "README.md").read_text()
    method = run.metrics["pretraining"]["method"]
    for text in (
        "ViT pretrained on digits",
        {"mae": "of the patches of an image hidden", "dino": "its own moving average, which is published"}[method],
        "vithub finetune --model",
        "AutoModel",
    ):
        assert text in card
    assert "pipeline_tag: image-feature-extraction" in card
    assert not (run.folder / ".eval_results").exists()


def test_finetune_linear_probe_explain_and_publish_take_it(run, digit_folders, quick, tmp_path):
    small = {name: value for name, value in quick().items() if not name.startswith(("model.", "augmentation."))}
    tuned = vithub.finetune(run.folder, digit_folders, tmp_path / "tuned", values=small)
    assert tuned.losses[-1] < tuned.losses[0]
    probe = {name: value for name, value in small.items() if name != "training.warmup"} | {"training.epochs": 3}
    probed = vithub.finetune(run.folder, digit_folders, tmp_path / "probed", preset="linear-probe", values=probe)
    kept, given = probed.model.vit.state_dict(), run.model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in given.items())  # only the head has learned
    pixels = torch.randn(1, 3, 12, 12)
    assert vithub.explain(AutoModel.from_pretrained(run.folder).eval(), pixels, method="rollout").maps.shape[1:] == (
        12,
        12,
    )
    sent = {file.path for file in vithub.publish(run.folder, "user/name", dry_run=True).sent}
    assert {"model.safetensors", "config.json", "README.md", "recipe.yaml"} <= sent
    assert not [path for path in sent if "checkpoints" in path]


@pytest.mark.parametrize("method", ["mae", "simmim"])
def test_it_is_pretrained_further_at_a_tenth_of_the_rate(run, method, digit_folders, tmp_path):
    values = {"training.epochs": 1, "training.warmup": 0, "data.workers": 0, "data.test_fraction": 0.2}
    more = vithub.pretrain(run.folder, digit_folders, tmp_path / "more", method=method, batch_size=40, values=values)
    fresh = vithub.training.recipe.presets.preset(f"pretrain-{method}")
    recipe = vithub.training.recipe.recipe.Recipe.from_yaml(more.folder / "recipe.yaml")
    assert recipe.training.lr == pytest.approx(0.1 * fresh.training.lr)
    old, new = run.model.state_dict(), more.model.state_dict()
    moved = max(float((new[name] - tensor).abs().max()) for name, tensor in old.items())
    assert 0 < moved < 0.05


def test_a_backbone_is_refused_where_a_head_is_needed(run, digit_folders):
    with pytest.raises(ValueError, match=r"is a backbone without a head, .*vithub finetune --model"):
        vithub.evaluate(run.folder)
    with pytest.raises(ValueError, match="without a head, which predicts nothing"):
        vithub.predict(run.folder, next(digit_folders.rglob("*.png")))


ON_BOTH_LOOPS = [(method, "accelerate") for method in METHODS] + [("mae", "trainer"), ("dino", "trainer")]


@pytest.mark.parametrize(("method", "front_end"), ON_BOTH_LOOPS, indirect=["method"], scope="module")
def test_a_broken_off_run_goes_on_to_the_same_bits(front_end, rich, method, options, pretrained, tmp_path, listener):
    more = options.get(method, {})
    with pytest.raises(KeyboardInterrupt):
        pretrained(tmp_path / "run", method, RICH, front_end=front_end, reporter=listener(5), **more)
    again = vithub.pretrain(output=tmp_path / "run", resume=True, front_end=front_end)
    assert again.losses == rich.losses[3:]  # the last checkpoint before the fifth step is that of the third
    assert same(again.folder, rich.folder)
    for file in ("model", "optimizer", "ema"):
        last, whole = (sorted((folder / "checkpoints").glob("step-*"))[-1] for folder in (again.folder, rich.folder))
        assert (last / f"{file}.safetensors").read_bytes() == (whole / f"{file}.safetensors").read_bytes()


def test_parts_of_a_batch_give_the_losses_of_the_whole(rich, method, options, pretrained, tmp_path):
    whole = pretrained(tmp_path / "whole", method, RICH | {"training.accumulation": 1}, **options.get(method, {}))
    assert whole.losses == pytest.approx(rich.losses, abs=1e-5)


WORKER = """
import json, sys
import pictures, torch, vithub

pictures.leave_blank()
torch.set_num_threads(1)
data, out, values, options = json.loads(sys.argv[1])
losses = {method: vithub.pretrain(data=data, output=f"{out}/{method}", method=method, values=values[method],
                                  **options.get(method, {})).losses for method in values}
if torch.distributed.get_rank() == 0:
    open(f"{out}/losses.json", "w").write(json.dumps(losses))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, digit_folders, quick_pretraining, options):
    out = tmp_path_factory.mktemp("two")
    values = {method: quick_pretraining(method, RICH) for method in METHODS}
    done = processes.launch(WORKER, [json.dumps([str(digit_folders), str(out), values, options])])
    assert done.returncode == 0, done.stderr[-6000:]
    return out


def test_two_processes_give_the_numbers_of_one(two_processes, rich, method):
    losses = json.loads((two_processes / "losses.json").read_text())[method]
    assert losses == pytest.approx(rich.losses, abs=1e-5)
    metrics = json.loads((two_processes / method / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["test"] == pytest.approx(rich.metrics["test"], rel=1e-3)


def test_labels_and_class_folders_change_nothing(pretrained, digit_folders, tmp_path):
    """The same images by class, without labels in one folder, and in a table whose labels are wrong."""
    files = sorted(digit_folders.rglob("*.png"))
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number, file in enumerate(files):  # in the order of the paths, which is that of the rows
        shutil.copy(file, tmp_path / "photos" / ("deep" if number % 2 else ".") / f"{number:03}.png")
    in_order = sorted((tmp_path / "photos").rglob("*.png"))
    table = load_dataset("imagefolder", data_files=[str(file) for file in in_order], split="train")
    table = table.add_column("label", [str(number % 3) for number in range(len(table))])
    one = pretrained(tmp_path / "one", data=tmp_path / "photos")
    other = pretrained(tmp_path / "other", data=table)
    assert one.losses == other.losses
    assert same(one.folder, other.folder)
    assert one.metrics["data"]["sizes"] == {"train": 280, "validation": 40, "test": 80}
    by_class = pretrained(tmp_path / "by class", data=digit_folders)
    assert by_class.metrics["data"]["sizes"] == one.metrics["data"]["sizes"]


def test_a_stream_of_images_without_labels_trains_and_resumes(quick_pretraining, digit_folders, tmp_path, listener):
    table = load_dataset("imagefolder", data_files=[str(file) for file in sorted(digit_folders.rglob("*.png"))])
    table["train"].to_parquet(tmp_path / "photos.parquet")
    values = quick_pretraining() | {"training.steps_per_epoch": 4, "training.checkpoint_steps": 3}
    values |= {"data.shuffle_buffer": 100, "data.held_out_images": 40}
    for name in ("data.test_fraction", "data.validation_fraction", "training.epochs"):
        del values[name]  # they have no effect on a stream
    options = {"data": tmp_path / "photos.parquet", "streaming": True, "max_steps": 8, "values": values}
    whole = vithub.pretrain(output=tmp_path / "whole", **options)
    assert len(whole.losses) == 8
    with pytest.raises(KeyboardInterrupt):
        vithub.pretrain(output=tmp_path / "run", reporter=listener(5), **options)
    again = vithub.pretrain(output=tmp_path / "run", resume=True)
    assert same(again.folder, whole.folder)


def test_bad_images_are_skipped_and_counted(pretrained, digit_folders, tmp_path):
    shutil.copytree(digit_folders, tmp_path / "photos")
    bad = sorted((tmp_path / "photos").rglob("*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:60])
    values = {"training.epochs": 1, "data.max_bad_share": 0.1}
    run = pretrained(tmp_path / "run", data=tmp_path / "photos", values=values, on_bad_image="skip")
    assert any(bad.name in name for names in run.metrics["bad_images"].values() for name in names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.publish": "best"}, r"training\.publish: best needs a measure of quality.*; use last, got best"),
        ({"training.early_stop": 2}, r"training\.early_stop: needs a measure of quality.*, got 2"),
        ({"data.label_column": "label"}, r"data\.label_column 'label' has no effect on task pretraining"),
        ({"pretraining.mask_unit": 2}, r"mask_unit 2 has no effect unless pretraining\.method is simmim"),
        ({"model.source": "vit-small"}, r"model\.source: there is no model 'vit-small'; did you mean vit-s"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(values, message, pretrained, tmp_path):
    with pytest.raises(RecipeError, match=message):
        pretrained(tmp_path / "run", values=values)
    assert not (tmp_path / "run").exists()


def test_other_sources_and_recipes_are_refused(pretrained, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images; an image is"):
        pretrained(tmp_path / "run", data=tmp_path / "empty")
    with pytest.raises(ValueError, match=r"recipe.* must be one with task pretraining, got classification"):
        vithub.pretrain(data="digits", recipe=vithub.training.recipe.presets.preset("finetune"))
