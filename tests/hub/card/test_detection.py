"""The card of a detector's run: from its own files, whole, and with snippets that find what the run reports."""

import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from vithub.hub.bundle.bundle_check import check_bundle
from vithub.hub.card.header import eval_results
from vithub.hub.card.model_card import render_card, write_card

import vithub

TABLE = re.compile(r"^\| (.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def text(detector_run):
    return (detector_run.folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def changed(detector_run, tmp_path):
    """A copy of the run's folder with other entries in metrics.json and config.json; gives folder and card."""

    def make(metrics=None, config=None, recipe=None):
        folder = shutil.copytree(detector_run.folder, tmp_path / "run", dirs_exist_ok=True)
        for name, entries in (("metrics.json", metrics), ("config.json", config)):
            content = json.loads((folder / name).read_text()) | (entries or {})
            (folder / name).write_text(json.dumps(content))
        for name, value in (recipe or {}).items():
            lines = (folder / "recipe.yaml").read_text()
            (folder / "recipe.yaml").write_text(re.sub(rf"(?m)^(  {name}):.*$", rf"\1: {value}", lines, count=1))
        return folder, render_card(folder)

    return make


def cells(text, first):
    """The cells of the only table row that begins so."""
    (line,) = (found for found in TABLE.findall(text) if found.startswith(f"{first} |"))
    return [cell.strip() for cell in line.split(" | ")]


def percent(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def test_nothing_is_left_to_be_filled_in(text):
    prose = re.sub(r"```.*?```", "", text.split("---\n", 2)[2], flags=re.DOTALL)
    for placeholder in ("more information needed", "todo", "{{", "{%", "undefined", "none", "nan"):
        assert not re.search(rf"(?<!\w){re.escape(placeholder)}(?!\w)", prose.lower()), placeholder
    assert "\n\n\n" not in text
    limits = text.split("## Limits, as measured\n\n")[1].split("<!--")[0]
    assert all(line.startswith("- ") for line in limits.splitlines())  # one list
    assert "recipe.yaml" in text
    assert "vithub finetune" in text or "vithub.finetune" in text


def test_the_header_is_understood_by_the_hub(detector_run, text):
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "object-detection", "unknown")
    assert {"vithub", "object-detection", "detr"} <= set(data.tags)
    figures = {result.metric_name: result for result in data.eval_results}
    assert figures["mAP (IoU 0.50 to 0.95)"].metric_value == round(detector_run.metrics["test"]["map"], 4)
    assert figures["mAP at IoU 0.50"].metric_value == round(detector_run.metrics["test"]["map_50"], 4)
    assert {result.task_type for result in figures.values()} == {"object-detection"}
    assert {result.dataset_split for result in figures.values()} == {"test"}


def test_its_figures_are_those_of_the_metrics(detector_run, text):
    metrics = detector_run.metrics
    figures, counts = metrics["test"], metrics["errors"]["counts"]
    boxes = sum(row["boxes"] for row in metrics["per_class"])
    assert boxes == metrics["data"]["boxes"]["test"] > 0
    wanted = f"**{percent(figures['map'])}** on {metrics['data']['sizes']['test']} images with {boxes} boxes"
    assert cells(text, "test mAP (IoU 0.50 to 0.95)")[1] == wanted
    shown = [found.split(" | ") for found in TABLE.findall(text) if found.startswith(("AP | ", "AR | "))]
    assert len(shown) == 12
    names = {
        ("AP", "0.50 to 0.95", "all", "100"): "map", ("AP", "0.50", "all", "100"): "map_50",
        ("AP", "0.75", "all", "100"): "map_75", ("AR", "0.50 to 0.95", "all", "1"): "mar_1",
        ("AR", "0.50 to 0.95", "all", "10"): "mar_10", ("AR", "0.50 to 0.95", "all", "100"): "mar_100",
    }  # fmt: skip
    names |= {
        (n, "0.50 to 0.95", s, "100"): f"m{n.lower()}_{s}" for n in ("AP", "AR") for s in ("small", "medium", "large")
    }
    named = {names[tuple(row[:4])]: row[4] for row in shown}
    assert named == {name: percent(figures[name]) for name in names.values()}
    for row in metrics["per_class"]:
        expected = [str(row["boxes"]), *(percent(row[name]) for name in ("map", "map_50", "map_75", "mar_100"))]
        assert cells(text, row["label"])[1:] == expected
    for kind in ("classification", "localisation", "both", "duplicate", "background", "missed"):
        assert cells(text, kind)[1] == str(counts[kind])
    found = sum(counts.values()) - counts["missed"]
    assert f"{found} boxes are found, and {counts['correct']} of them are right" in text


def test_it_says_what_the_data_was_and_how_boxes_were_read(detector_run, text):
    data = detector_run.metrics["data"]
    for split, count in data["sizes"].items():
        assert f"{count} images with {data['boxes'][split]} boxes for {split}" in text
    assert "Read as a column of objects, a box as left, top, width, height in pixels" in text
    for note in data["notes"]:
        assert note[1:] in text


def test_its_pictures_are_there_and_show_no_image_of_the_data(detector_run, text):
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert set(pictures) == {"precision_recall.png", "errors.png", "learning_curves.png"}
    assert all((detector_run.folder / picture).is_file() for picture in pictures)
    assert not (detector_run.folder / "detections.png").exists()


def test_its_snippets_run_and_find_the_same_boxes(detector_run, detector_data, text, tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    detector_data[0]["image"].save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        image.save(photo, quality=100)
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    (threshold,) = set(re.findall(r"threshold=([\d.e-]+)", "".join(snippets)))
    assert float(threshold) == pytest.approx(detector_run.metrics["errors"]["threshold"], abs=1e-4)
    (expected,) = vithub.predict(detector_run.folder, [photo], threshold=0.0)
    first = expected["predictions"][0]
    for snippet in snippets:
        code = snippet.replace("photo.jpg", str(photo)).replace(f"threshold={threshold}", "threshold=0.0")
        exec(compile(code, "README.md", "exec"), {"__name__": "snippet"})
        printed = capsys.readouterr().out
        assert first["label"] in printed
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", printed)]
        assert min(abs(number - first["score"]) for number in numbers) < 1e-3


def test_the_folder_loads_where_the_package_is_missing(detector_run):
    checked = check_bundle(detector_run.folder)
    assert checked.classes["AutoModelForObjectDetection"].endswith("modeling_detr.HubDetrForObjectDetection")
    assert checked.classes["AutoImageProcessor"].startswith("transformers.")
    assert checked.answers is not None


def test_a_backbone_of_timm_is_said_to_need_timm_and_is_checked_with_it(tiny_detr, randomised, changed, tmp_path):
    backbone = {"model_type": "timm_backbone", "backbone": "test_efficientnet", "out_indices": [3]}
    folder, card = changed(config={"backbone_config": backbone})
    assert "torch, transformers and Pillow, and timm for the backbone, are enough" in card
    assert cells(card, "backbone")[1] == "`test_efficientnet`"
    shutil.rmtree(folder)
    model = randomised(vithub.HubDetrForObjectDetection(tiny_detr(backbone_config=backbone)))
    model.save_pretrained(folder)
    assert "AutoModelForObjectDetection.logits" in check_bundle(folder).tensors


@pytest.mark.parametrize(
    ("source", "backbone", "said"),
    [
        ("detr", "null", ", from scratch."),
        ("detr", "/private/effnet", ", its backbone starting from `effnet`."),
        ("facebook/detr-resnet-50", "null", ", starting from `facebook/detr-resnet-50`."),
    ],
)
def test_it_says_what_the_run_started_from(source, backbone, said, changed):
    folder, card = changed(recipe={"source": source, "backbone": backbone})
    assert said in card
    assert "/private" not in card.split("```yaml")[0]
    hub_id = source if "/" in source else None
    assert ModelCard(card).data.base_model == hub_id
    assert folder.is_dir()


def test_the_methods_that_were_used_are_named_and_cited(changed):
    _, card = changed()
    assert (
        "A detection transformer (DETR) with queries that are anchor boxes, denoising training and the focal loss."
        in card
    )
    for paper in ("2005.12872", "2201.12329", "2203.01305", "1708.02002", "1405.0312", "2008.08115"):
        assert paper in card
    _, plain = changed(config={"anchor_queries": False, "denoising_queries": 0, "focal_loss": False})
    assert "A detection transformer (DETR). It finds" in plain
    assert "2201.12329" not in plain


def test_an_older_run_has_a_card_without_what_it_does_not_know(detector_run, changed):
    known = {name: detector_run.metrics["data"][name] for name in ("name", "sizes", "notes")}
    _, card = changed(metrics={"data": known})
    assert "Read as" not in card
    assert re.search(r"\d+ images for train, \d+ images for validation", card)


def test_a_run_of_version_0_1_has_both_sides_under_another_name(changed):
    _, card = changed(metrics={"image_sides": None, "image_hw": [48, 96]})
    assert "shorter side 48 pixels, longer side at most 96" in card


def test_a_detector_that_found_nothing_is_reported_as_such(detector_run, changed):
    metrics = json.loads(json.dumps(detector_run.metrics))
    errors = metrics["errors"]
    errors["counts"] = dict.fromkeys(errors["counts"], 0) | {"missed": 20}
    errors["confusion"] = [[0, 0, 10], [0, 0, 10], [0, 0, 0]]
    metrics["test"] = {**dict.fromkeys(metrics["test"], 0.0), "map_large": None}
    metrics["validation"]["map"] = None
    metrics["per_class"][0] |= {"boxes": 0, "map": None, "map_50": None, "map_75": None, "mar_100": None}
    folder, card = changed(metrics=metrics | {"bad_images": {"test": ["a.png"], "train": ["b.png", "b.png"]}})
    assert "0 boxes are found, and 0 of them are right (-)" in card
    assert "No box was right on the test split" in card
    assert "Most often confused" not in card
    assert f"Never seen in the test split, and so not measured: {metrics['per_class'][0]['label']}." in card
    assert '"-" where there is no such box' in card
    assert "left out: 1 of test, 1 of train" in card
    assert f"on {metrics['data']['sizes']['test'] - 1} images" in card
    empty = {**metrics, "test": dict.fromkeys(metrics["test"])}
    (folder / "metrics.json").write_text(json.dumps(empty))
    assert ModelCard(render_card(folder)).data.eval_results is None
    assert eval_results({"data": {"source": "user/cells"}}, empty, "object-detection") is None


def test_results_on_a_benchmark_of_the_hub_are_listed_for_its_page(detector_run):
    (entry,) = yaml.safe_load(eval_results({"data": {"source": "user/cells"}}, detector_run.metrics, "boxes"))
    assert entry["dataset"] == {"id": "user/cells", "task_id": "boxes"}
    assert entry["value"] == round(detector_run.metrics["test"]["map"], 4)
    assert entry["notes"].startswith("mAP (IoU 0.50 to 0.95) on the test split")


def test_what_a_person_wrote_stays(changed):
    folder, _ = changed()
    card = (folder / "README.md").read_text()
    mine = card.replace("## Limits, as measured", "## Limits, as measured", 1)
    mine = mine.replace("<!-- vithub: begin data", "The microscope was a school's.\n\n<!-- vithub: begin data")
    (folder / "README.md").write_text(mine.replace("license: unknown", "license: mit"))
    assert write_card(folder) == ["license"]
    again = (folder / "README.md").read_text()
    assert "The microscope was a school's." in again
    assert "The licence of the weights is `mit`." in again


def test_the_card_for_the_hub_loads_the_repository(detector_run):
    card = render_card(detector_run.folder, location="user/cells")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[:2]
    assert all('"user/cells", trust_remote_code=True' in block for block in blocks)
