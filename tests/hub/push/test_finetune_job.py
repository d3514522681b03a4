"""The job for hired machines (examples/finetune_job.py), run on the CPU against the loopback Hub."""

import re
import tomllib
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from pictures import save_blank

import vithub

ROOT = Path(__file__).parents[3]
JOB = ROOT / "examples/finetune_job.py"
BRANCH = "training-state"
VALUES = {
    "model.fields": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1},
    "data.workers": 0,
    "training.precision": "fp32",
    "training.batch_size": 400,
    "training.trackers": [],
}


@pytest.fixture
def job(clients, tmp_path, tokens):
    """Runs the job, each time in another folder, as on another machine: `job("xet", arguments...)`."""
    folders = (tmp_path / str(number) for number in range(10))

    def run(transport, *arguments, token=None):
        client, folder = clients(transport), next(folders)
        client.run("import runpy", f"job = runpy.run_path({str(JOB)!r})['main']", "0")
        code = client.run(f"job({[*arguments, '--folder', str(folder)]!r})", token=token)
        assert not any(secret in client.printed for secret in tokens.values())
        return code, client.printed, folder

    return run


def arguments_for(repo, epochs=2, budget="9h"):
    sets = [part for name, value in VALUES.items() for part in ("--set", f"{name}={value}")]
    return [repo, "--data", "digits", "--epochs", str(epochs), "--budget", budget, *sets]


def branches(hub, repo):
    return {name.removeprefix("refs/heads/") for name in hub.store.repositories["model", repo].refs}


def test_a_spent_budget_publishes_and_the_next_job_goes_on_to_the_same_weights(job, hub, tmp_path, monkeypatch):
    """Long, as it is what the script is for: two jobs, as on two machines, each of which publishes."""
    code, printed, _ = job("xet", *arguments_for("ada/job", budget="0s"))
    assert code == 0, printed
    assert "the time budget is spent" in printed
    assert branches(hub, "ada/job") == {"main", BRANCH}
    kept, published = hub.store.files("ada/job", BRANCH), hub.store.files("ada/job")
    assert "recipe.yaml" in kept
    assert any(name.endswith("optimizer.safetensors") for name in kept)
    assert {"config.json", "model.safetensors", "manifest.json"} <= set(published)
    assert not any(name.startswith("checkpoints/") for name in published)

    code, printed, folder = job("xet", *arguments_for("ada/job"))
    assert code == 0, printed
    assert "resuming from step" in printed
    assert branches(hub, "ada/job") == {"main"}
    monkeypatch.setattr(Figure, "savefig", save_blank)
    whole = vithub.finetune(data="digits", output=tmp_path / "whole", epochs=2, values=VALUES)
    assert (folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert hub.store.files("ada/job")["model.safetensors"] != published["model.safetensors"]


@pytest.mark.parametrize(("token", "message"), [("", "no access token"), ("eve", "may only read")])
def test_a_token_that_may_not_write_fails_before_the_training(job, hub, tokens, token, message):
    code, printed, folder = job("lfs", *arguments_for("eve/job"), token=tokens.get(token, ""))
    assert code == 1
    assert message in printed
    assert not folder.exists()
    assert hub.asked("create") == 0


def test_the_script_states_what_it_needs_and_where_it_comes_from():
    block = re.search(r"(?m)^# /// script\n((?:#.*\n)+?)# ///$", JOB.read_text("utf-8"))
    needs = tomllib.loads("".join(line[1:].removeprefix(" ") + "\n" for line in block[1].splitlines()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert needs["requires-python"] == project["requires-python"]
    assert needs["dependencies"] == [project["name"]]
    # A name alone would be looked up in the public index, where anyone may have taken it.
    assert set(needs["tool"]["uv"]["sources"]) == {project["name"]}
