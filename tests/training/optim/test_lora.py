import json

import pytest
import torch
from peft import PeftModel
from vithub.training.recipe.recipe import RecipeError

import vithub

LORA = {"lora.rank": 2, "lora.alpha": 8, "lora.publish": "adapter", "model.image_size": None, "model.fields": {}}


@pytest.fixture(scope="module")
def adapted(train, finished_run, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "adapted", LORA | {"model.source": str(finished_run.folder)})


def test_adapters_and_heads_learn_and_nothing_else(adapted, finished_run):
    before = vithub.HubDeiTForImageClassification.from_pretrained(finished_run.folder).state_dict()
    after = adapted.model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    matrices = {f"deit.layers.{n}.attention.{kind}.weight" for n in range(2) for kind in ("q_proj", "v_proj")}
    heads = {f"{head}.{part}" for head in ("classifier", "distillation_classifier") for part in ("weight", "bias")}
    assert changed == matrices | heads
    for name in matrices:
        assert torch.linalg.matrix_rank(after[name] - before[name], atol=1e-5) <= 2


# peft asks transformers for a name that is on its way out
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_adapter_alone_gives_the_merged_model(adapted, finished_run):
    base = vithub.HubDeiTForImageClassification.from_pretrained(finished_run.folder)
    folder = adapted.folder / "adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        finished_run.folder
    )
    model = PeftModel.from_pretrained(base, folder).eval()
    pixels = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).logits, adapted.model(pixels).logits, atol=1e-5, rtol=1e-5)


def test_adapters_go_on_where_they_were_broken_off(adapted, train, finished_run, listener, tmp_path):
    values = LORA | {"model.source": str(finished_run.folder)}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", values, reporter=listener(9))
    resumed = train(tmp_path / "run", values, resume=True)
    assert resumed.losses == adapted.losses[7:]
    assert all(torch.equal(t, resumed.model.state_dict()[name]) for name, t in adapted.model.state_dict().items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora.targets": ["nothing"]}, "lora.targets: HubDeiTForImageClassification has no layers named nothing"),
        ({"training.freeze": "backbone"}, "training.freeze must be 0, got 'backbone'"),
    ],
)
def test_what_cannot_be_adapted_is_refused(train, tmp_path, values, message):
    with pytest.raises(RecipeError, match=message):
        train(tmp_path / "run", {"lora.rank": 2} | values)
