"""A run in bf16 reports what its folder gives when it is loaded: figures in fp32."""

import pytest
import torch
from torch import nn
from vithub.training.runtime.precision import undo_autocast

import vithub


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_classifier_trained_in_bf16_is_judged_in_fp32(front_end, train, tmp_path):
    run = train(tmp_path / "run", {"training.precision": "bf16", "training.epochs": 3}, front_end=front_end)
    assert run.metrics["precision"] == "bf16"
    served = vithub.evaluate(run.folder)["metrics"]
    assert served == pytest.approx(run.metrics["test"], rel=1e-6)
    pixels = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        alone = type(run.model).from_pretrained(run.folder)(pixels).logits
        assert torch.equal(run.model(pixels).logits, alone)
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.allclose(run.model(pixels).logits.float(), alone, atol=1e-6)


@pytest.mark.parametrize("front_end", ["accelerate", "trainer"])
def test_a_detector_trained_in_bf16_is_judged_in_fp32_and_again_when_resumed(
    front_end, detector_data, quick_detector, tmp_path
):
    detector_data.to_parquet(tmp_path / "squares.parquet")
    options = {
        "data": tmp_path / "squares.parquet", "output": tmp_path / "run", "preset": "detr-small-data",
        "front_end": front_end, "values": quick_detector({"training.precision": "bf16", "training.epochs": 2}),
    }  # fmt: skip
    run = vithub.finetune(**options)
    served = vithub.evaluate(run.folder)
    assert served["metrics"]["loss"] == pytest.approx(run.metrics["test"]["loss"], rel=1e-6)
    again = vithub.finetune(**options, resume=True)
    assert again.losses == []
    assert again.metrics["test"] == run.metrics["test"]
    assert again.metrics["seconds"] == pytest.approx(run.metrics["seconds"], abs=0.2)


def test_a_forward_of_the_models_own_is_put_back():
    class Own(nn.Linear):
        pass

    model, plain = Own(2, 2), Own(2, 2)
    model.forward = own = lambda pixels: pixels
    model._original_forward = model.forward
    model.forward = lambda pixels: 2 * pixels
    undo_autocast(model)
    assert model.forward is own
    undo_autocast(plain)
    assert "forward" not in vars(plain)
