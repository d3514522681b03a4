"""`.eval_results` is sent where the Hub shows it: for its own benchmarks, under their task ids, and else not."""

import pytest
import yaml
from huggingface_hub import EvalResultEntry, parse_eval_result_entries

RESULTS = ".eval_results/vithub.yaml"
CARD = b"---\ntags: [benchmark:official]\n---\n"


def tasks(*listed):
    return yaml.safe_dump({"name": "Beasts", "tasks": list(listed)}).encode()


WHOLE = tasks({"id": "beasts_test", "config": "default", "split": "test"}, {"id": "other", "split": "validation"})
TWO = tasks(*({"id": name, "split": "test"} for name in "ab"))
# Files of the data set, fields of the recipe, the splits that were drawn, and the task under which results are sent.
CASES = {
    "benchmark": ({"README.md": CARD, "eval.yaml": WHOLE}, {}, {"drawn": []}, "beasts_test"),
    "named split": ({"README.md": CARD, "eval.yaml": WHOLE}, {"data.test_split": "validation"}, {"drawn": []}, "other"),
    "split drawn by the run": (
        {"README.md": CARD, "eval.yaml": WHOLE}, {}, {"drawn": ["test", "validation"]}, None,
    ),
    "older run": ({"README.md": CARD, "eval.yaml": WHOLE}, {}, {}, None),
    "no benchmark": ({"README.md": b"# Beasts\n", "eval.yaml": WHOLE}, {}, {"drawn": []}, None),
    "no such split": ({"README.md": CARD, "eval.yaml": tasks({"id": "a", "split": "train"})}, {}, {"drawn": []}, None),
    "two tasks": ({"README.md": CARD, "eval.yaml": TWO}, {}, {"drawn": []}, None),
    "no tasks": ({"README.md": CARD}, {}, {"drawn": []}, None),
    "damaged": ({"README.md": CARD, "eval.yaml": b"tasks: [{id: [}"}, {}, {"drawn": []}, None),
    "no data set": (None, {}, {"drawn": []}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_results_are_sent_for_benchmarks_of_the_hub_alone(name, clients, hub, run_folder):
    files, recipe, said, task = CASES[name]
    dataset, repo = f"bob/{name.replace(' ', '-')}", f"ada/on-{name.replace(' ', '-')}"
    if files is not None:
        blobs = {path: hub.store.keep(data) for path, data in files.items()}
        repository = hub.store.create("dataset", dataset, private=False)
        repository.commit("main", "x", "", "bob", lambda held: held.update(blobs))
    data = {"name": "beasts", "sizes": {"train": 300, "validation": 80, "test": 80}, "notes": [], **said}
    folder, metrics, _ = run_folder("resnet", recipe={"data.source": dataset, **recipe}, data=data)
    (folder / RESULTS).parent.mkdir()
    (folder / RESULTS).write_text("- {}")  # as earlier versions wrote it for any data
    publish = f"vithub.publish({str(folder)!r}, {repo!r}).to_dict()"
    report = clients("lfs").run(publish)
    held = hub.store.files(repo)
    assert (RESULTS in held) == (task is not None)
    if task is not None:
        (entry,) = parse_eval_result_entries(yaml.safe_load(hub.store.contents[held[RESULTS]]))
        assert isinstance(entry, EvalResultEntry)
        assert (entry.dataset_id, entry.task_id) == (dataset, task)
        assert entry.value == round(metrics["test"]["accuracy"], 4)
        assert entry.notes == "accuracy on the test split, 80 images"
        assert clients("lfs").run(publish)["nothing_to_do"]
    else:
        (left,) = (file for file in report["files"] if file["path"] == RESULTS)
        assert (left["sent"], left["why"]) == (False, "results that the Hub shows for its own benchmarks only")


def test_results_of_an_earlier_version_are_removed_from_the_repository(clients, hub, run_folder):
    folder, *_ = run_folder("resnet", recipe={"data.source": "bob/gone"})
    blob = hub.store.keep(b"- {}")
    repository = hub.store.create("model", "ada/older", private=False)
    repository.commit("main", "x", "", "ada", lambda held: held.update({RESULTS: blob}))
    report = clients("lfs").run(f"vithub.publish({str(folder)!r}, 'ada/older').to_dict()")
    assert report["removed"] == [RESULTS]
