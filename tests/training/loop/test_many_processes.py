"""Two processes on this machine, over gloo, against one."""

import json
from pathlib import Path

import processes
import pytest
import torch
from safetensors.torch import load_file

BENCHMARKS = str(Path(__file__).parents[3] / "benchmarks")
# Each process runs this; what is asserted here fails the launch.
WORKER = """
import json, os, shutil, sys
from pathlib import Path
import pictures
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
import vithub
from vithub.training.finetuning import finetune
from vithub.training.recipe.recipe import Recipe
from vithub.training.loop.checkpoints import checkpoints, restore, save_checkpoint, whole_state

sys.path.append(sys.argv[2])
from communication import closed_form, counted_steps

pictures.leave_blank()
torch.set_num_threads(1)
data, out, values = json.loads(sys.argv[1])
out = Path(out)
found = {}
for front_end in ("accelerate", "trainer"):
    with counted_steps() as sent:  # of the loop on Accelerate
        run = finetune(data=data, output=out / front_end, recipe=Recipe(), values=values, front_end=front_end)
    if front_end == "accelerate":
        whole = type(run.model).from_pretrained(run.folder)
        found["sent"] = sent[-1], closed_form(whole, 2, "ACCELERATE_USE_FSDP" in os.environ, 2)
    found[front_end] = {"losses": run.losses, "metrics": run.metrics}
    shared_out = all(isinstance(parameter, DTensor) for parameter in run.model.parameters())
    assert shared_out == ("ACCELERATE_USE_FSDP" in os.environ)
assert dist.get_world_size() == 2
main = dist.get_rank() == 0

# without its last checkpoints a run goes on to the same weights, sharded or not
whole = whole_state(run.model)
if main:
    for lost in checkpoints(out / "trainer" / "checkpoints")[1:]:
        shutil.rmtree(lost)
dist.barrier()
resumed = finetune(data=data, output=out / "trainer", recipe=Recipe(), values=values, resume=True)
assert 0 < len(resumed.losses) < len(run.losses)
for name, tensor in whole_state(resumed.model).items():
    assert torch.equal(tensor, whole[name]), name

# a model whose layers are shared out saves and restores whole tensors
config = vithub.HubDeiTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                              image_size=16, patch_size=8, num_labels=3)
pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(dist.get_rank()))
both = [torch.empty_like(pixels) for _ in range(2)]
dist.all_gather(both, pixels)

def built(shard):
    torch.manual_seed(0)
    model = vithub.HubDeiTForImageClassification(config)
    if shard:
        for layer in model.deit.layers:
            fully_shard(layer)
        fully_shard(model)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

def step(model, optimizer, images):
    loss = model(images, labels=torch.zeros(len(images), dtype=torch.long)).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()

sharded, optimizer = built(True)
assert any(isinstance(parameter, DTensor) for parameter in sharded.parameters())
step(sharded, optimizer, pixels)
save_checkpoint(out / "sharded", 1, sharded, optimizer, {}, 1, write=main)
dist.barrier()
step(sharded, optimizer, pixels)
again, other = built(True)
restore(out / "sharded" / "step-00000001", again, other)
step(again, other, pixels)
expected = whole_state(sharded)
for name, tensor in whole_state(again).items():
    assert torch.equal(tensor, expected[name]), name
alone, third = built(False)
for _ in range(2):
    step(alone, third, torch.cat(both))
for name, tensor in alone.state_dict().items():
    if "k_proj.bias" not in name:  # softmax does not see it: its gradient is rounding
        torch.testing.assert_close(expected[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
if main:
    (out / "found.json").write_text(json.dumps(found))
dist.barrier()
dist.destroy_process_group()
"""

VALUES = {
    "model.fields": {
        "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1,
        "drop_path_rate": 0.2, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    },
    "augmentation.mixup": 0.8,
    "training.accumulation": 2,
    "training.ema_decay": 0.9,
    "training.checkpoint_steps": 5,
    "training.clip_norm": 1.0,
    "evaluation.batch_size": 7,  # neither 40 nor 80 images are a multiple of two times that
}  # fmt: skip


def listed(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


# What `accelerate launch` passes on of docs/accelerate/fsdp2.yaml.
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "HubViTLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


@pytest.fixture(scope="module", params=[{}, FSDP2], ids=["ddp", "fsdp2"])
def two_processes(request, once, digit_folders, quick):
    def launch(out):
        out.mkdir()
        task = json.dumps([str(digit_folders), str(out), quick(VALUES)])
        done = processes.launch(WORKER, [task, BENCHMARKS], env=request.param)
        assert done.returncode == 0, done.stderr[-6000:]

    out = once(f"two-processes-{'fsdp2' if request.param else 'ddp'}", launch)
    return out, json.loads((out / "found.json").read_text())


@pytest.fixture(scope="module")
def one_process(train, trained_once):
    return trained_once("one-process", lambda folder: train(folder, VALUES))


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_two_processes_give_the_losses_of_one(two_processes, one_process, front_end):
    folder, found = two_processes
    assert found[front_end]["losses"] == pytest.approx(one_process.losses, abs=1e-5)
    assert found[front_end]["metrics"]["processes"] == 2
    weights = [load_file(run / "model.safetensors") for run in (folder / front_end, one_process.folder)]
    for name, tensor in weights[0].items():
        if "k_proj.bias" not in name:
            torch.testing.assert_close(tensor, weights[1][name], atol=2e-3, rtol=2e-2, msg=name)


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_an_evaluation_shared_out_counts_each_image_once(two_processes, one_process, front_end):
    metrics = two_processes[1][front_end]["metrics"]
    assert sum(map(sum, metrics["confusion"])) == 80
    assert metrics["validation"]["loss"] == pytest.approx(one_process.metrics["validation"]["loss"], abs=1e-4)
    rows = [[row["images"] for row in run["per_class"]] for run in (metrics, one_process.metrics)]
    assert rows[0] == rows[1]


def test_one_set_of_files_is_written(two_processes, one_process):
    folder, _ = two_processes
    assert listed(folder / "accelerate") == listed(one_process.folder) == listed(folder / "trainer")


def test_a_step_sends_the_bytes_of_the_closed_form(two_processes):
    """As docs/scaling.md gives them; the rest, such as the agreement on the loss, is under one percent."""
    counted, expected = two_processes[1]["sent"]
    assert expected
    for kind, wanted in expected.items():
        assert counted[kind] == pytest.approx(wanted, rel=0.01), kind
    others = sum(count for kind, count in counted.items() if kind not in expected)
    assert others < 0.01 * sum(expected.values())
