"""The Auto classes know our models after `import vithub`, whichever of the two packages is imported first."""

import importlib
import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from patience import PATIENCE
from vithub.hub.import_hooks import after_import, after_package_settles

import vithub

# Each loads what AutoConfig, AutoModel... make of a folder that was saved before, and saves it anew.
USE = """
import sys
folder, target = sys.argv[1:]
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
assert type(AutoConfig.from_pretrained(folder)) is vithub.HubViTConfig
assert type(AutoModel.from_pretrained(folder)) is vithub.HubViTModel
assert type(AutoImageProcessor.from_pretrained(folder)).__name__.startswith("BitImageProcessor")
model = AutoModelForImageClassification.from_pretrained(folder)
assert type(model) is vithub.HubViTForImageClassification
model.save_pretrained(target)
"""
ORDERS = {
    "ours first": "import vithub\n" + USE,
    "theirs first": "from transformers import AutoModel\nimport vithub\n" + USE,
    "ours between": "from transformers import AutoConfig, PreTrainedModel\nimport vithub\n" + USE,
    "ours first, then the rest of theirs": "import vithub\nfrom transformers import pipeline, Trainer\n" + USE,
    "our configuration first": "from vithub.configuration.configuration_detr import HubDetrConfig\nimport vithub\n"
    + USE,
    "ours first, then a class of a model": "import vithub\nfrom transformers import ViTModel\n" + USE,
    "ours first, then a module of theirs": "import vithub\nfrom transformers.modeling_layers import "
    "GradientCheckpointingLayer\nfrom transformers.trainer import Trainer\n" + USE,
    "ours first, by a model": "import vithub\nvithub.HubDeiTForImageClassification\n" + USE,
    "ours first, by a function": "import vithub\nvithub.load\nvithub.explain\n" + USE,
    "our processing first": "from vithub.data.image_processing import build_image_processor\nimport vithub\n" + USE,
    "theirs first, nothing of it used": "import transformers, vithub\n" + USE,
    "ours first, then a detector of theirs": "import vithub\nfrom transformers import AutoModelForObjectDetection, "
    "AutoBackbone\nfrom transformers.models.rt_detr.modeling_rt_detr import RTDetrModel\n" + USE,
    "ours first, then their generation": "import vithub\nfrom transformers.generation import GenerationMixin\n" + USE,
    "our model first": "from vithub.modeling.modeling_vit import HubViTModel\nimport vithub\n" + USE,
}

# Forks a process for each order once what both packages are built on is imported, which takes longer than the rest.
FORKS = """
import json, os, sys, tempfile, traceback
import huggingface_hub, jinja2, numpy, PIL.Image, pydantic, safetensors.torch, tokenizers, torch, torchvision
import huggingface_hub.hf_api, scipy.optimize, torch._dynamo, torch.distributed.checkpoint.state_dict_saver
import torch.distributed.tensor, torch.export, torch.nn.attention.flex_attention, torchvision.transforms.v2, yaml
assert not {"transformers", "vithub", "accelerate", "datasets", "timm"} & set(sys.modules)
found = []
for order, *arguments in json.loads(sys.argv[1]):
    errors = tempfile.TemporaryFile("w+")
    child = os.fork()
    if child == 0:
        os.dup2(errors.fileno(), 2)
        sys.argv[1:] = arguments
        try:
            exec(order, {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    errors.seek(0)
    found.append([code, errors.read()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def orders(once, tiny):
    """A folder with a saved classifier and, for each order in a process that had imported neither package before,
    what it saved, its exit code and its errors; made once for all parallel processes."""
    from vithub.data.image_processing import build_image_processor

    def run(place):
        torch.manual_seed(0)
        vithub.HubViTForImageClassification(tiny()).save_pretrained(place / "saved")
        build_image_processor((32, 32)).save_pretrained(place / "saved")
        task = [[order, str(place / "saved"), str(place / f"{number}")] for number, order in enumerate(ORDERS.values())]
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:vithub", "-c", FORKS, json.dumps(task)],
            capture_output=True, text=True, timeout=PATIENCE, cwd=place,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (place / "outcomes.json").write_text(done.stdout)

    return once("orders", run)


@pytest.mark.parametrize("order", ORDERS)
def test_the_auto_classes_know_our_models_in_a_clean_process(order, orders):
    number = list(ORDERS).index(order)
    code, errors = json.loads((orders / "outcomes.json").read_text())[number]
    assert code == 0, errors
    saved, again = orders / "saved", orders / f"{number}"
    # the code of the bundle lies beside the weights
    assert {file.name for file in saved.glob("*.py")} <= {file.name for file in again.iterdir()}
    assert list(saved.glob("modeling_*.py"))


def test_importing_the_package_imports_none_of_the_large_libraries(tmp_path):
    code = "import sys, vithub; assert vithub.__version__; dir(vithub); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert not {"torch", "transformers", "numpy", "pydantic", "datasets", "timm"} & set(done.stdout.split())


def test_importing_it_after_transformers_registers_only_when_an_auto_class_is_used(tmp_path):
    code = """
import sys, transformers, vithub
assert "torch" not in sys.modules
from transformers import AutoModelForObjectDetection
assert vithub.HubDetrConfig in AutoModelForObjectDetection._model_mapping.keys()
"""
    subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, check=True)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module that can be imported, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        made.append(name)

    finders = list(sys.meta_path)
    yield make
    sys.meta_path[:] = finders
    for name in made:
        sys.modules.pop(name, None)


def test_a_step_runs_once_after_its_module_and_leaves_no_trace(module):
    module("watched_module", "value = 1")
    module("other_module", "value = 2")
    told, finders = [], list(sys.meta_path)
    after_import({"watched_module": lambda: told.append(sys.modules["watched_module"].value)})
    import other_module  # noqa: F401

    assert told == []
    import watched_module

    assert told == [1]
    assert sys.meta_path == finders
    importlib.reload(watched_module)
    assert told == [1]
    for loader in (watched_module.__loader__, watched_module.__spec__.loader):
        assert type(loader).__name__ == "SourceFileLoader"
    after_import({"watched_module": lambda: told.append("at once")})
    assert told == [1, "at once"]
    assert sys.meta_path == finders


def test_a_step_may_import_a_module_that_is_waited_for(module):
    module("first_module", "value = 1")
    module("second_module", "value = 2")
    told = []
    importlib.import_module("first_module")
    after_import({
        "first_module": lambda: importlib.import_module("second_module"),
        "second_module": lambda: told.append("second"),
    })  # fmt: skip
    assert told == ["second"]


def test_a_module_that_fails_does_not_run_its_step_and_tells_its_own_error(module):
    module("failing_module", "raise RuntimeError('its own')")
    told = []
    after_import({"failing_module": lambda: told.append("step"), "never_there": lambda: told.append("never")})
    with pytest.raises(RuntimeError, match="its own"):
        importlib.import_module("failing_module")
    with pytest.raises(ModuleNotFoundError, match="never_there"):
        importlib.import_module("never_there")
    assert told == []


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in which `outer` imports `inner` before it defines what `inner`'s step would need."""
    folder = tmp_path / "settling_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("")
    (folder / "outer.py").write_text("from . import inner\nready = True\n")
    (folder / "failing.py").write_text("from . import inner\nraise RuntimeError('its own')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    finders = list(sys.meta_path)
    yield "settling_package"
    sys.meta_path[:] = finders
    for name in [n for n in sys.modules if n.split(".")[0] == "settling_package"]:
        del sys.modules[name]


def test_a_step_waits_for_the_end_of_the_outermost_import(package):
    told, finders = [], list(sys.meta_path)
    after_package_settles(package, {f"{package}.inner": lambda: told.append(sys.modules[f"{package}.outer"].ready)})
    importlib.import_module(f"{package}.outer")
    assert told == [True]
    assert sys.meta_path == finders
    assert type(sys.modules[f"{package}.inner"].__spec__.loader).__name__ == "SourceFileLoader"


def test_a_step_runs_after_the_step_that_made_it_due(package):
    told = []

    def first():
        importlib.import_module(f"{package}.outer")
        told.append("first")

    after_package_settles(package, {package: first, f"{package}.inner": lambda: told.append("second")})
    importlib.import_module(package)
    assert told == ["first", "second"]


def test_a_step_runs_also_where_the_outer_module_fails_after_its_own_was_imported(package):
    told = []
    after_package_settles(package, {f"{package}.inner": lambda: told.append("inner")})
    with pytest.raises(RuntimeError, match="its own"):
        importlib.import_module(f"{package}.failing")
    assert told == ["inner"]


def test_a_step_whose_module_is_there_runs_at_once_and_others_wait(package):
    told = []
    importlib.import_module(package)
    after_package_settles(
        package, {package: lambda: told.append("now"), f"{package}.inner": lambda: told.append("later")}
    )
    assert told == ["now"]
    assert importlib.util.find_spec(f"{package}.inner").loader.get_filename().endswith("inner.py")
    importlib.import_module(f"{package}.inner")
    assert told == ["now", "later"]
