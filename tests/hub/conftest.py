"""A loopback Hub, official clients of it, one process for each transport, and folders of runs with true counts."""

import json

import pytest
import torch
from hub_server import ClientProcess, LoopbackHub
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)
from vithub.data.image_processing import build_image_processor
from vithub.hub.card.model_card import write_card
from vithub.training.recipe.recipe import Recipe
from vithub.training.tasks.classification.metrics.choice import metrics_for

from vithub import HubDeiTConfig, HubDeiTForImageClassification, HubViTForImageClassification

TOKENS = {
    "ada": "hf_adaWritesEverythingOfHers01",
    "bob": "hf_bobWritesHisOwnThings0000001",
    "eve": "hf_eveMayOnlyRead000000001",
}
LABELS = ["ant", "bee", "cat | dog", "dragon", "eel", "fox"]
HISTORY = [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]


@pytest.fixture(scope="session")
def running_hub():
    with LoopbackHub() as hub:
        hub.store.add_user("ada", TOKENS["ada"], "write", ("lab",))
        hub.store.add_user("bob", TOKENS["bob"], "write")
        hub.store.add_user("eve", TOKENS["eve"], "read", ("lab",))
        yield hub
        assert not hub.unknown, "requests that the loopback Hub does not know"


@pytest.fixture
def hub(running_hub):
    """The Hub without faults; requests that it does not know, and its own errors, fail the test."""
    running_hub.reset()
    yield running_hub
    unknown, crashes = list(running_hub.unknown), list(running_hub.crashes)
    running_hub.reset()
    running_hub.unknown.clear()
    running_hub.crashes.clear()
    assert not unknown
    assert not crashes


@pytest.fixture(scope="session")
def start_client(running_hub, tmp_path_factory):
    """Starts a client with a fresh home: `start_client("xet")`."""
    started = []

    def start(transport, token=TOKENS["ada"]):
        home = tmp_path_factory.mktemp("clients") / f"{transport}{len(started)}"
        started.append(ClientProcess(running_hub, home, transport, token))
        return started[-1]

    yield start
    for client in started:
        client.close()


@pytest.fixture(scope="session")
def clients(start_client):
    """The client of a transport, logged in as ada, started when it is needed: `clients("xet")`."""
    started = {}

    def give(transport):
        if transport not in started:
            started[transport] = start_client(transport)
            started[transport].run("from huggingface_hub import *", "import vithub", "0")
            started[transport].run("import io, logging, sys, tempfile", "from pathlib import Path", "0")
            started[transport].run("from vithub.scripts.command_line import app, run", "0")
        return started[transport]

    return give


@pytest.fixture(scope="session", params=["lfs", "xet"])
def client(request, clients):
    """The client of each transport in turn; each test takes repositories of its own."""
    return clients(request.param)


@pytest.fixture(scope="session")
def tokens():
    return TOKENS


def model_of(kind, tiny, multi_label):
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: number for number, name in enumerate(LABELS)}}
    names["problem_type"] = "multi_label_classification" if multi_label else "single_label_classification"
    if kind == "resnet":
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], **names)
        return ResNetForImageClassification(config)
    if kind == "timm":
        config = TimmWrapperConfig(architecture="test_vit", **names)
        return TimmWrapperForImageClassification(config)
    if kind == "deit":
        return HubDeiTForImageClassification(tiny(HubDeiTConfig, num_labels=6, **names))
    return HubViTForImageClassification(tiny(num_labels=6, **names))


@pytest.fixture
def run_folder(tmp_path, tiny):
    """Makes the folder of a run with true counts of invented logits; `changes` replace entries of metrics.json."""

    def make(kind="vit", multi_label=False, recipe=None, **changes):
        folder = tmp_path / "run"
        model_of(kind, tiny, multi_label).save_pretrained(folder)
        build_image_processor((32, 32)).save_pretrained(folder)
        (folder / "recipe.yaml").write_text(Recipe().with_values(recipe or {}).to_yaml())
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(6, (80,), generator=generator)
        logits = torch.randn(80, 6, generator=generator) + torch.nn.functional.one_hot(labels, 6) - 0.5
        if multi_label:
            labels = ((logits + torch.randn(80, 6, generator=generator)) > 1).long()
            labels[:, 5] = 0
        counts = metrics_for(6, multi_label)
        counts.update(logits, labels)
        metrics = {
            "problem": model_of(kind, tiny, multi_label).config.problem_type,
            "validation": counts.compute(),
            "test": counts.compute(),
            "reported_split": "test",
            "intervals": {name: list(ends) for name, ends in counts.intervals(samples=50).items()},
            "per_class": counts.per_class(LABELS),
            "confusion": None if counts.confusion is None else counts.confusion.tolist(),
            "reliability": counts.reliability(),
            "published_epoch": 2,
            "weights": "trained",
            "teacher": None,
            "history": HISTORY,
            "data": {"name": "beasts", "sizes": {"train": 300, "validation": 80, "test": 80}, "notes": []},
            "image_hw": [32, 32],
            "parameters": 1234,
            "batch_size": 10,
            "seconds": 75.0,
            "precision": "fp32",
            "processes": 1,
            "hardware": "an abacus",
            "versions": {"python": "3.11"},
        }
        metrics = {name: value for name, value in (metrics | changes).items() if value is not ...}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        write_card(folder)
        return folder, metrics, (folder / "README.md").read_text()

    return make
