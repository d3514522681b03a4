"""`model.compile` on both front ends: the losses of the uncompiled run, and a folder that anyone loads."""

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

import vithub

FIELDS = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1}
VALUES = {
    "model.fields": FIELDS | {"drop_path_rate": 0.2},
    "augmentation.mixup": 0.8,
    "training.accumulation": 2,
    "training.ema_decay": 0.9,
    "training.epochs": 1,
}


@pytest.fixture
def captured(monkeypatch):
    """Compiles without generating code, which takes a minute and changes no graph; tells how many graphs there were."""
    torch_compile = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, **options: torch_compile(model, **{**options, "backend": "aot_eager"})
    )
    torch.compiler.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


@pytest.fixture(scope="module")
def plain(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "plain", VALUES)


@pytest.fixture(scope="module")
def plain_detector(detector_data, quick_detector, tmp_path_factory):
    return train_detector(detector_data, quick_detector, tmp_path_factory.mktemp("runs") / "plain")


def train_detector(data, quick_detector, out, front_end="accelerate", **values):
    """Without dropout, which follows the step when compiled, and the sample when not."""
    changes = {f"model.fields.{name}": 0.0 for name in ("dropout", "attention_dropout", "activation_dropout")}
    changes |= {"training.epochs": 1, **values}
    return vithub.finetune(
        data=data, output=out, preset="detr-small-data", values=quick_detector(changes), front_end=front_end
    )


def check_same(run, plain, pixels):
    """Losses, the names of the weights, and what the saved models answer."""
    assert run.losses == pytest.approx(plain.losses, rel=1e-5)
    one, other = (load_file(each.folder / "model.safetensors") for each in (run, plain))
    assert one.keys() == other.keys()  # no trace of the wrapper
    kind = type(plain.model)
    models = [kind.from_pretrained(each.folder).eval() for each in (run, plain)]
    with torch.no_grad():
        torch.testing.assert_close(*(model(pixels).logits for model in models), atol=1e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # raised inside torch's compiler
@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_compiled_run_is_the_uncompiled_one(train, plain, captured, tmp_path, front_end):
    run = train(tmp_path / "run", VALUES | {"model.compile": True}, front_end=front_end)
    assert captured() > 0
    check_same(run, plain, torch.rand(4, 3, *2 * [plain.model.config.image_size]))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # raised inside torch's compiler
def test_a_compiled_detector_is_the_uncompiled_one(detector_data, quick_detector, plain_detector, captured, tmp_path):
    """On one front end: both compile any task's model alike, as the classifier's runs above show."""
    run = train_detector(detector_data, quick_detector, tmp_path / "run", "trainer", **{"model.compile": True})
    assert captured() > 0
    check_same(run, plain_detector, torch.rand(2, 3, 64, 64))
