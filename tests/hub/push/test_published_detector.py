"""The run of a detector on the loopback Hub: all of it sent, text written into its card kept, its boxes the same."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def publisher(clients):
    return clients("lfs")


def test_a_detectors_run_is_published_with_its_card_and_keeps_edits(publisher, hub, detector_run, tmp_path):
    repo, folder = "ada/squares", tmp_path / "run"
    shutil.copytree(detector_run.folder, folder)
    shutil.copy(folder / "errors.png", folder / "logs.txt")

    def publish(check):
        return publisher.run(f"vithub.publish({str(folder)!r}, {repo!r}, check={check}).to_dict()")

    report = publish(True)  # loaded in a process without the package first
    sent = {file["path"] for file in report["files"] if file["sent"]}
    assert sent >= {
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "metrics.json",
        "precision_recall.png", "errors.png", "learning_curves.png", "modeling_detr.py", "configuration_detr.py",
    }  # fmt: skip
    assert not [path for path in sent if path.startswith(("checkpoints", "logs"))]
    repository = hub.store.repositories["model", repo]

    def online():
        return hub.store.contents[hub.store.files(repo)["README.md"]].decode()

    pinned = f'trust_remote_code=True, revision="{report["pinned"]}"'
    assert f'pipeline("object-detection", "{repo}", {pinned})' in online()
    assert str(detector_run.folder) not in online()
    assert publish(False)["nothing_to_do"]
    edited = online().replace("license: unknown", "license: mit") + "\n## How the squares were drawn\n"
    blob = hub.store.keep(edited.encode())
    repository.commit("main", "On the web", "", "ada", lambda held: held.update({"README.md": blob}))
    metrics = json.loads((folder / "metrics.json").read_text()) | {"seconds": 3600.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    publish(False)
    assert "## How the squares were drawn" in online()
    assert "license: mit" in online()
    assert "60 minutes on" in online()


def test_what_was_published_finds_what_the_run_finds(publisher, hub, detector_run, detector_data, tmp_path):
    detector_data[0]["image"].save(tmp_path / "photo.png")
    found = publisher.run(
        "from transformers import AutoModelForObjectDetection, pipeline",
        f"report = vithub.publish({str(detector_run.folder)!r}, 'ada/finds', check=False)",
        "detect = pipeline('object-detection', 'ada/finds', revision=report.commit)",
        f"detect({str(tmp_path / 'photo.png')!r}, threshold=0.0)",
    )
    here = publisher.run(
        f"pipeline('object-detection', {str(detector_run.folder)!r})({str(tmp_path / 'photo.png')!r}, threshold=0.0)"
    )
    assert found == here
    assert len(found) == 16  # 8 queries, 2 classes
