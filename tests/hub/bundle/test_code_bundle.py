"""The code beside saved weights: which files, what is in them, who writes them."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForImageClassification, Trainer, TrainingArguments
from transformers.dynamic_module_utils import get_imports, get_relative_imports
from transformers.utils import PushToHubMixin
from vithub.hub.bundle.code_bundle import auto_map, bundle_files, registered_models
from vithub.hub.bundle.flat_sources import BundleError, flat_sources
from vithub.modeling.modeling_base import HubPreTrainedModel

import vithub

CONFIGS = [getattr(vithub, name) for name in vithub.__all__ if name.endswith("Config")]


@pytest.fixture
def model(tiny):
    return vithub.HubViTForImageClassification(tiny())


def sources(folder):
    return {file.name: file.read_bytes() for file in Path(folder).glob("*.py")}


@pytest.mark.parametrize("config_class", CONFIGS, ids=lambda c: c.__name__)
def test_the_files_are_whole_small_and_import_two_libraries_only(config_class, tmp_path):
    files = bundle_files(config_class)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, text in files.items():
        compile(text, name, "exec")
        assert text.startswith(f"# {name} of vithub {vithub.__version__} (Apache-2.0)")
        needed = {f"{other}.py" for other in get_relative_imports(tmp_path / name)}
        assert needed <= files.keys()
        assert set(get_imports(tmp_path / name)) - sys.stdlib_module_names <= {"torch", "transformers"}
    assert sum(map(len, files.values())) < 250_000  # a DETR's holds the ViT and the DeiT, its backbones


@pytest.mark.parametrize("config_class", CONFIGS, ids=lambda c: c.__name__)
def test_what_a_named_file_needs_through_others_it_names_itself(config_class, tmp_path):
    """transformers 5.4 copies only these out of a local folder."""
    files = bundle_files(config_class)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for reference in auto_map(config_class).values():
        entry = f"{reference.split('.')[0]}.py"
        direct = {f"{other}.py" for other in get_relative_imports(tmp_path / entry)}
        for other in direct:
            assert {f"{name}.py" for name in get_relative_imports(tmp_path / other)} <= direct | {entry}


def test_every_public_model_is_in_the_bundle_of_its_configuration():
    public = {
        found
        for name in vithub.__all__
        if isinstance(found := getattr(vithub, name), type) and issubclass(found, HubPreTrainedModel)
    }
    assert public == {model for config_class in CONFIGS for model in registered_models(config_class).values()}


def test_the_map_names_a_file_and_a_class_for_each_auto_class(model, tmp_path):
    model.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert stated == {
        "AutoConfig": "configuration_vit.HubViTConfig",
        "AutoBackbone": "vit_backbone.HubViTBackbone",
        "AutoModel": "modeling_vit.HubViTModel",
        "AutoModelForImageClassification": "modeling_vit.HubViTForImageClassification",
        "AutoModelForMaskedImageModeling": "modeling_vit.HubViTForMaskedImageModeling",
    }
    assert "modeling_deit.py" not in sources(tmp_path)


def test_the_same_model_gives_the_same_bytes_in_any_process(model, tmp_path):
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one == two
    code = (
        "import hashlib, vithub; from vithub.hub.bundle.code_bundle import bundle_files;"
        "print(hashlib.sha256(repr(bundle_files(vithub.HubDeiTConfig)).encode()).hexdigest())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256(repr(bundle_files(vithub.HubDeiTConfig)).encode()).hexdigest()
    assert elsewhere.stdout.strip() == here


def test_with_the_package_its_own_classes_load_trusted_or_not(model, tmp_path):
    model.save_pretrained(tmp_path)
    for trust in ({}, {"trust_remote_code": True}):
        assert type(AutoModelForImageClassification.from_pretrained(tmp_path, **trust)) is type(model)
        assert type(AutoModel.from_pretrained(tmp_path, **trust)) is vithub.HubViTModel
        assert type(vithub.HubViTConfig.from_pretrained(tmp_path)) is vithub.HubViTConfig


def test_a_trainer_saves_the_same_files(model, tmp_path):
    model.save_pretrained(tmp_path / "plain")
    arguments = TrainingArguments(str(tmp_path / "trainer"), report_to="none", use_cpu=True)
    Trainer(model, arguments).save_model(str(tmp_path / "trainer"))
    assert sources(tmp_path / "trainer") == sources(tmp_path / "plain") == encoded(vithub.HubViTConfig)


def encoded(config_class):
    return {name: text.encode() for name, text in bundle_files(config_class).items()}


def test_what_is_uploaded_has_the_files(model, tmp_path, monkeypatch):
    """At the moment when transformers uploads a folder, the bundle is in it, whichever way it came there."""
    seen = []

    def upload(self, working_dir, *args, **kwargs):
        config = json.loads((Path(working_dir) / "config.json").read_text())
        seen.append((sources(working_dir), "auto_map" in config))

    class Api:
        def create_repo(self, repo_id, **kwargs):
            return type("Url", (), {"repo_id": repo_id})

    card = type("Card", (), {"save": lambda self, file: None})
    monkeypatch.setattr(PushToHubMixin, "_upload_modified_files", upload)
    for module in ("transformers.utils.hub", "transformers.modeling_utils"):
        monkeypatch.setattr(f"{module}.hf_api", Api)
        monkeypatch.setattr(f"{module}.create_and_tag_model_card", lambda *args, **kwargs: card())
    model.push_to_hub("someone/something")
    model.save_pretrained(tmp_path, push_to_hub=True)
    assert seen == [(encoded(vithub.HubViTConfig), True)] * 2


def test_only_the_main_process_writes(model, tmp_path):
    model.save_pretrained(tmp_path, False)
    assert not sources(tmp_path)


def test_files_of_an_older_bundle_go_and_those_of_others_stay(model, tiny, tmp_path):
    vithub.HubDeiTForImageClassification(tiny(vithub.HubDeiTConfig)).save_pretrained(tmp_path)
    (tmp_path / "handler.py").write_text("# of vithub 0.1.0, by hand\n")
    (tmp_path / "old.py").write_text("# old.py of vithub 0.0.1 (Apache-2.0), one of the files that load without it.\n")
    model.save_pretrained(tmp_path)
    assert sources(tmp_path).keys() == bundle_files(vithub.HubViTConfig).keys() | {"handler.py"}


def test_a_map_of_another_repository_is_replaced(model, tmp_path):
    model.config.auto_map = {"AutoConfig": "someone/other--configuration_x.X", "AutoModelForSomething": "x.Y"}
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == auto_map(vithub.HubViTConfig)


def test_a_class_derived_elsewhere_is_saved_with_its_parents_code_and_a_warning(tiny, tmp_path, caplog, monkeypatch):
    class Mine(vithub.HubViTForImageClassification):
        pass

    import logging

    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("vithub"), "propagate", True)
    with caplog.at_level("WARNING"):
        Mine(tiny()).save_pretrained(tmp_path)
    assert "Mine is no class of vithub" in caplog.text
    assert sources(tmp_path) == encoded(vithub.HubViTConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import timm\n", "imports timm"),
        ("def f():\n    from scipy.optimize import linear_sum_assignment\n", "imports scipy"),
        ("from ..hub.folders import TargetError\n", r"vithub\.hub\.folders cannot be published"),
        ("from . import layers\n", "must import names from a file"),
        ("from vithub.modeling.layers import add_residual\n", "imports vithub"),
    ],
)
def test_code_that_would_not_load_elsewhere_is_refused(text, message, tmp_path, monkeypatch):
    use_module(text, tmp_path, monkeypatch)
    with pytest.raises(BundleError, match=message):
        flat_sources(["vithub.modeling.made_up"])


def test_what_transformers_allows_to_be_missing_may_be_imported(tmp_path, monkeypatch):
    text = (
        "try:\n    import scipy\nexcept ImportError:\n    scipy = None\nfrom .position_embeddings import (\n    a,\n)\n"
    )
    use_module(text, tmp_path, monkeypatch)
    files = flat_sources(["vithub.modeling.made_up"])
    assert list(files) == ["made_up.py", "position_embeddings.py"]
    assert files["made_up.py"].partition("\n")[2] == text


def use_module(text, folder, monkeypatch):
    file = folder / "made_up.py"
    file.write_text(text)
    module = type(sys)("vithub.modeling.made_up")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_models_own_tensors_do_not_change_by_saving(model, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    model.save_pretrained(tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "auto_map" not in model.config.to_dict()
    assert config.keys() == model.config.to_dict().keys()
