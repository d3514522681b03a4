"""Saved folders where the package is missing: a process that can import torch, transformers and Pillow only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import DetrImageProcessor
from vithub.data.image_processing import build_image_processor
from vithub.hub.bundle import clean_process
from vithub.hub.bundle.bundle_check import PACKAGES, check_bundle, check_bundles
from vithub.hub.bundle.flat_sources import BundleError
from vithub.modeling.modeling_base import HubPreTrainedModel

import vithub

MODELS = [
    found
    for name in vithub.__all__
    if isinstance(found := getattr(vithub, name), type) and issubclass(found, HubPreTrainedModel)
]
TASKS = ("ForImageClassification", "ForObjectDetection")
UNUSUAL = {
    "use_swiglu_ffn": True, "num_register_tokens": 3, "position_embedding_type": "sincos", "embedding_norm": True,
    "image_size": (24, 40), "pool": "cls+mean", "layer_scale_init_value": 0.1, "drop_path_rate": 0.2,
    "problem_type": "multi_label_classification",
}  # fmt: skip

EXTRA = {"unusual": "HubViTForImageClassification", "on_a_vit": "HubDetrForObjectDetection"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny, tiny_detr, randomised):
    """A folder of each public model class, of a ViT with unusual fields in bfloat16, and of a DETR on a ViT."""

    def config_of(config_class):
        return tiny_detr() if config_class is vithub.HubDetrConfig else tiny(config_class)

    models = [model_class(config_of(model_class.config_class)) for model_class in MODELS]
    models.append(vithub.HubViTForImageClassification(tiny(**UNUSUAL)).to(torch.bfloat16))
    models.append(vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=tiny().to_dict(), anchor_queries=True)))
    models = [randomised(model) for model in models]
    place = tmp_path_factory.mktemp("saved")
    names = [*(model_class.__name__ for model_class in MODELS), *EXTRA]
    for name, model in zip(names, models, strict=True):
        model.save_pretrained(place / name)
        if type(model).__name__.endswith(TASKS):
            processor_of(model).save_pretrained(place / name)
    return [place / name for name in names]


def processor_of(model):
    if isinstance(model, vithub.HubDetrForObjectDetection):
        return DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return build_image_processor(model.config.image_hw)


def check(folders, **where):
    for folder, found in zip(folders, check_bundles(folders, **where), strict=True):
        name = EXTRA.get(folder.name, folder.name)
        assert any(loaded.endswith(f".{name}") for loaded in found.classes.values())
        assert any(tensor.startswith("AutoModel.") for tensor in found.tensors)
        assert (found.answers is not None) == name.endswith(TASKS)
        if name.endswith(TASKS):
            assert "AutoImageProcessor.pixel_values" in found.tensors
        yield found


def test_every_model_class_loads_without_the_package_and_computes_the_same_to_the_bit(folders):
    assert len(folders) == len(MODELS) + len(EXTRA) >= 9
    assert len({found.folder for found in check(folders)}) == len(folders)


def test_with_the_lowest_transformers_too(folders):
    """`make lowest` makes the environment and names it. Image processors need torchvision there, whatever the model."""
    python = os.environ.get("VITHUB_LOWEST_PYTHON")
    if not python:
        pytest.skip("VITHUB_LOWEST_PYTHON names no interpreter; `make lowest` makes one")
    declared = (Path(__file__).parents[3] / "pyproject.toml").read_text().partition('"transformers>=')[2].split('"')[0]
    for found in check(folders, python=python, packages=(*PACKAGES, "torchvision")):
        assert found.versions["transformers"].startswith(f"{declared}.")


def test_what_was_loaded_without_the_package_can_be_saved_and_loaded_again(folders, tmp_path):
    """In one process without the package, and then with it."""
    source = next(folder for folder in folders if folder.name == "HubDeiTForImageClassification")
    code = f"""
import runpy
clean = runpy.run_path({clean_process.__file__!r})
clean["forget_other_packages"](["torch", "transformers", "pillow"])
import torch
from transformers import AutoModelForImageClassification as Auto
model = Auto.from_pretrained({str(source)!r}, trust_remote_code=True)
model.classifier.bias.data += 1
model.save_pretrained({str(tmp_path / "again")!r})
again = Auto.from_pretrained({str(tmp_path / "again")!r}, trust_remote_code=True)
assert type(again).__module__.startswith("transformers_modules.again")
pixels = torch.ones(1, 3, 32, 32)
assert torch.equal(again.eval()(pixels).logits, model.eval()(pixels).logits)
"""
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    old, new = (vithub.HubDeiTForImageClassification.from_pretrained(f) for f in (source, tmp_path / "again"))
    assert torch.equal(new.classifier.bias, old.classifier.bias + 1)


@pytest.fixture
def spoiled(folders, tmp_path):
    """Copies the folder of a ViT classifier and spoils one file of it."""
    source = next(folder for folder in folders if folder.name == "HubViTForImageClassification")

    def make(name, change):
        for file in source.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        text = (tmp_path / name).read_text()
        assert change(text) != text
        (tmp_path / name).write_text(change(text))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers.py", lambda text: "import vithub\n" + text, "does not load .* No module named 'vithub'"),
        (
            "modeling_vit.py",
            lambda text: text.replace("logits = self.classifier(", "logits = 1.001 * self.classifier("),
            r"AutoModelForImageClassification\.logits differs by up to",
        ),
    ],
)
def test_a_folder_that_would_fail_elsewhere_is_refused(spoiled, name, change, message):
    with pytest.raises(BundleError, match=f"(?s){message}"):
        check_bundle(spoiled(name, change))


def test_a_folder_without_code_is_refused_at_once(spoiled):
    with pytest.raises(BundleError, match="holds no code bundle"):
        check_bundle(spoiled("config.json", lambda text: text.replace('"auto_map"', '"other"')))


def test_nothing_but_the_named_packages_can_be_imported():
    code = f"""
import runpy, sys
clean = runpy.run_path({clean_process.__file__!r})
clean["forget_other_packages"](["torch", "transformers", "pillow"])
for name in ("vithub", "timm", "accelerate", "torchvision", "scipy", "datasets", "pytest"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(name + " can be imported")
import numpy, PIL, safetensors, transformers
assert not transformers.utils.is_timm_available() and not transformers.utils.is_torchvision_available()
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
