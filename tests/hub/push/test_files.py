"""What belongs into a published model, and what looks like a secret."""

import json
import logging

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from vithub.hub.checkpoints import CheckpointError
from vithub.hub.push.files import PublishFile, select_files
from vithub.hub.push.secret_scan import redact, redacted_logs, scan

SECRETS = {
    "a Hugging Face token": "hf_" + "aB3d" * 9,
    "an AWS access key": "AKIA" + "Q7" * 8,
    "a GitHub token": "ghp_" + "x1Y2" * 9,
    "an API key": "sk-proj-" + "Ab12_" * 8,
    "a Google API key": "AIza" + "b3C_d" * 7,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "a password in an address": "postgresql://ada:hunter2hunter@db.example.org/x",
    "a value that looks like a secret, under the name 'WANDB_API_KEY'": "WANDB_API_KEY=" + "0f3a9b1c7d2e4856" * 2,
    "a value that looks like a secret, under the name 'password'": '"password": "k3Jx9-Qm2Zt7+Wv5b"',
}


def entry(content, path="recipe.yaml"):
    return PublishFile(path, len(content), True, "", content)


def model(folder):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file({"a": np.ones((3, 4), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_is_found_and_told_without_showing_it(what):
    text = f"first line\nnote: {SECRETS[what]}\n"
    (finding,) = scan([entry(text.encode())])
    assert (finding.path, finding.line, finding.what) == ("recipe.yaml", 2, what)
    assert SECRETS[what].split("=")[-1] not in str(finding)


@given(before=st.integers(0, 3_000_000), secret=st.sampled_from(sorted(SECRETS.values())[:4]))
def test_a_secret_is_found_wherever_it_lies(before, secret):
    content = b"." * (before - 1) + b"\n" * min(before, 1) + secret.encode() + b"\n" + b"," * 100
    assert [finding.path for finding in scan([entry(content)])] == ["recipe.yaml"]


def test_a_secret_in_the_header_of_weights_and_in_a_picture_is_found(tmp_path, monkeypatch):
    token = SECRETS["a Hugging Face token"]
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(4)}, file, metadata={"note": token})
    picture = entry(b"\x89PNG\r\n tEXtnote\0" + token.encode() + b"\0", "plot.png")
    found = scan([PublishFile("model.safetensors", 1, True, "", source=file), picture])
    assert [(f.path, f.line) for f in found] == [("model.safetensors", None), ("plot.png", None)]
    monkeypatch.setenv("MY_API_TOKEN", "plain words are secret")
    tensors = {"a": np.frombuffer(b"....plain words are secret......", np.uint8)}
    safetensors.numpy.save_file(tensors, file)
    (finding,) = scan([PublishFile("model.safetensors", 1, True, "", source=file)])
    assert finding.what == "the value of MY_API_TOKEN"
    assert scan([PublishFile("model.safetensors", 1, False, "", source=file)]) == []


def test_nothing_is_found_where_there_is_nothing(finished_run):
    assert scan(select_files(finished_run.folder)) == []
    harmless = (
        b"use_distillation_token: true\nnum_register_tokens = 4\ntoken = model.config.cls_token_identifier\n"
        b"sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\nhttps://huggingface.co/a/b@main\n"
    )
    assert scan([entry(harmless)]) == []


def test_a_run_is_published_without_what_only_training_needs(finished_run):
    decided = {file.path: file for file in select_files(finished_run.folder)}
    sent = {path for path, file in decided.items() if file.sent}
    needed = {
        "README.md",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "preprocessor_config.json",
        "recipe.yaml",
    }
    assert needed | {"learning_curves.png", "confusion_matrix.png"} <= sent
    assert not [path for path in sent if path.startswith("checkpoints") or path.endswith((".bin", ".pt", ".lock"))]
    assert all(file.why for file in decided.values())
    assert any(path.startswith("checkpoints/") for path in decided)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (".env", "environment"),
        (".env.local", "environment"),
        ("sub/.env", "environment"),
        ("token", "credentials"),
        ("server.pem", "credentials"),
        (".git/config", "version control"),
        ("checkpoints/step-00000002/model.safetensors", "checkpoint"),
        ("checkpoint-500/model.safetensors", "checkpoint"),
        ("optimizer.pt", "state of the training"),
        ("training_args.bin", "state of the training"),
        ("pytorch_model.bin", "pickle"),
        ("weights.pkl", "pickle"),
        ("__pycache__/a.cpython-311.pyc", "cache"),
        ("features_train.safetensors", "cache"),
        ("events.out.tfevents.1.host", "log"),
        ("README.md~", "temporary file"),
        ("train.py", "code that config.json does not name"),
        (".hidden", "hidden file"),
        ("data.csv", "no part of a model"),
        ("other/model.safetensors", "no part of a model"),
    ],
)
def test_what_stays_is_told_why(path, why, tmp_path):
    folder = model(tmp_path / "m")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x")
    (file,) = (file for file in select_files(folder) if file.path == path)
    assert not file.sent
    assert file.why.startswith(why)


def test_code_is_sent_where_the_configuration_names_it_or_it_is_imported(tmp_path):
    folder = model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_x.X"}}))
    (folder / "modeling_x.py").write_text("from .layers import Layer\n")
    (folder / "layers.py").write_text("import torch\n")
    (folder / "train.py").write_text("import os\n")
    assert {f.path for f in select_files(folder) if f.sent and f.path.endswith(".py")} == {"modeling_x.py", "layers.py"}


def test_half_a_model_is_refused_by_name(tmp_path):
    folder = model(tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match=rf"model\.safetensors has {len(whole) - 5} bytes where its header tells"):
        select_files(folder)
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no readable safetensors file"):
        select_files(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        select_files(folder)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json names 'model-00001-of-00002\.safetensors', which is not"):
        select_files(folder)


@given(st.sampled_from(sorted(SECRETS)[2:]), st.text(max_size=30))
def test_messages_are_redacted(what, around):
    secret = SECRETS[what]
    assert secret not in redact(f"{around} Authorization: Bearer {secret} {around}")


def test_logs_are_redacted_and_addresses_lose_their_signatures(caplog):
    token = "x9-token-of-a-shape-that-nobody-knows"
    logger = logging.getLogger("huggingface_hub.utils._http")
    with caplog.at_level("WARNING", "huggingface_hub"), redacted_logs(token):
        logger.propagate, before = True, logger.propagate
        logging.getLogger("huggingface_hub").addHandler(caplog.handler)
        logger.warning("retrying %s at https://s3.example/x?X-Amz-Signature=abc&b=1", token)
        logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
        logger.propagate = before
    assert "retrying *** at https://s3.example/x?***" in caplog.text
    assert token not in caplog.text
