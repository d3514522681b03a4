"""Exported forms on the loopback Hub: sent with the model, found by its id, and refused where they are not of it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from vithub.data.image_processing import build_image_processor
from vithub.deployment.exporting import export
from vithub.hub.exported.forms import BackendError

import vithub


@pytest.fixture
def folder(tiny, randomised, tmp_path):
    """A ViT that transformers has a class for, so that it is published under other names of weights, and its file."""
    folder = tmp_path / "model"
    randomised(vithub.HubViTForImageClassification(tiny(layer_norm_eps=1e-12))).save_pretrained(folder)
    build_image_processor((32, 32)).save_pretrained(folder)
    export(folder, "openvino")
    return folder


def test_a_form_is_found_and_run_by_the_models_id(clients, hub, folder):
    client, repo = clients("lfs"), "ada/exported"
    report = client.run("import torch, vithub", f"vithub.publish({str(folder)!r}, {repo!r}).to_dict()")
    assert report["form"] == "native"
    held = hub.store.files(repo)
    assert {"export.json", "openvino/openvino_model.xml", "openvino/openvino_model.bin"} <= set(held)
    sent = json.loads(hub.store.contents[held["export.json"]])["forms"]["openvino"]
    record = json.loads((folder / "export.json").read_text())["forms"]["openvino"]
    assert record["source"] == "model"  # without the path of this machine
    assert sent == {key: value for key, value in record.items() if key != "weights"}
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = client.run(
        f"pixels = torch.tensor({pixels.tolist()!r})",
        f"vithub.load_exported({repo!r}, 'openvino')(pixel_values=pixels).logits.tolist()",
    )
    with torch.no_grad():
        wanted = vithub.load(folder)(pixels).logits
    torch.testing.assert_close(torch.tensor(found), wanted, atol=1e-4, rtol=0)
    again = client.run(
        "from vithub.deployment.exporting import export",
        f"export({repo!r}, 'openvino', output={str(folder.parent / 'again')!r}).record",
    )
    assert again["source"] == repo
    assert again["source_commit"] == report["commit"]


def test_a_form_of_other_weights_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("classifier.bias"))
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    message = r"openvino_model\.xml was exported from other weights than those in .*model\.safetensors; export the"
    with pytest.raises(BackendError, match=message):
        vithub.load_exported(folder, "openvino")
    with pytest.raises(BackendError, match=message):
        vithub.publish(folder, "ada/stale", dry_run=True)
    export(folder, "openvino", overwrite=True)
    assert vithub.load_exported(folder, "openvino") is not None
