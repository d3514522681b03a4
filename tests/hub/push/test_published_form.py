"""The form in which a model is sent: a class of transformers where that gives the same answers, else with its code."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from published import written
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForObjectDetection, pipeline
from vithub.data.boxes.dataset import build_box_processor
from vithub.data.image_processing import build_image_processor
from vithub.hub.conversion.transformers_configs import InexpressibleError
from vithub.hub.push.errors import PublishError
from vithub.hub.push.published_form import choose_form
from vithub.scripts.command_line import app, run

import vithub

VIT, DEIT = vithub.HubViTForImageClassification, vithub.HubDeiTForImageClassification
DINO = {"layer_scale_init_value": 1.0, "pool": "cls+mean"}
PLAIN = {"use_distillation_token": False, "use_distillation_head": False}
SEVERAL = {"problem_type": "multi_label_classification"}
# Models that transformers expresses: our class, fields, and the class in transformers.
NATIVE = {
    "vit": (VIT, {}, "ViTForImageClassification"),
    "wide": (VIT, {"image_size": (32, 48)}, "ViTForImageClassification"),
    "several labels": (VIT, SEVERAL, "ViTForImageClassification"),
    "sincos": (VIT, {"position_embedding_type": "sincos"}, "ViTForImageClassification"),
    "without distillation": (DEIT, PLAIN, "ViTForImageClassification"),
    "distilled": (DEIT, {"distillation": "hard"}, "DeiTForImageClassificationWithTeacher"),
    "dinov2": (VIT, DINO, "Dinov2ForImageClassification"),
    "registers": (VIT, DINO | {"num_register_tokens": 2, "use_mask_token": True},
                  "Dinov2WithRegistersForImageClassification"),
    "dinov2 on cls": (VIT, {"layer_scale_init_value": 1.0}, "Dinov2ForImageClassification"),
    "registers on cls, no mask token": (VIT, {"num_register_tokens": 2, "layer_scale_init_value": 1.0},
                                        "Dinov2WithRegistersForImageClassification"),
    "dinov2 on the mean": (VIT, DINO | {"pool": "mean"}, "Dinov2ForImageClassification"),
    "without a cls token": (VIT, {"use_cls_token": False, "pool": "mean"}, "IJepaForImageClassification"),
}  # fmt: skip
# Models that it does not express, and what the reason names.
WITH_CODE = {
    "mean": (VIT, {"pool": "mean"}, r"pool='mean' \(only 'cls'\)"),
    "norm of queries": (VIT, {"qk_norm": True}, "qk_norm=True"),
    "norm after pooling": (VIT, {"norm_after_pool": True, "pool": "mean"}, "norm_after_pool=True"),
}


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(file)
    return str(file)


@pytest.fixture
def saved(tiny, randomised, tmp_path):
    """Saves a model with its processor: `saved(VIT, pool="mean")`."""

    def save(model_class, processor=None, **fields):
        model = randomised(model_class(tiny(model_class.config_class, **fields)))
        model.save_pretrained(tmp_path / "run")
        (processor or build_image_processor(model.config.image_hw)).save_pretrained(tmp_path / "run")
        return tmp_path / "run"

    return save


def contents(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}


def answers(folder, photo, **options):
    found = pipeline("image-classification", str(folder))(photo, top_k=9, **options)
    return {entry["label"]: entry["score"] for entry in found}


@pytest.mark.parametrize("name", NATIVE)
def test_a_model_of_transformers_is_sent_as_one_and_answers_the_same(name, saved, photo, tmp_path):
    model_class, fields, architecture = NATIVE[name]
    folder = saved(model_class, **fields)
    before = contents(folder)
    sent = written(folder, tmp_path / "sent")
    assert contents(folder) == before  # the folder itself keeps its code
    assert not list(sent.glob("*.py"))
    assert json.loads((sent / "config.json").read_text())["architectures"] == [architecture]
    assert (sent / "preprocessor_config.json").read_bytes() == (folder / "preprocessor_config.json").read_bytes()
    loaded = AutoModelForImageClassification.from_pretrained(sent)
    assert type(loaded).__name__ == architecture
    assert type(loaded).__module__.startswith("transformers.models.")
    expected = answers(folder, photo)
    assert len(expected) == 5
    assert answers(sent, photo) == pytest.approx(expected, abs=1e-6)
    again = vithub.load(sent)  # with this package it is ours again
    assert isinstance(again, model_class if model_class is VIT or fields.get("distillation") else VIT)
    assert again.config.pool == fields.get("pool", "cls")
    assert torch.equal(again.classifier.weight, vithub.load(folder).classifier.weight)


@pytest.mark.parametrize("name", WITH_CODE)
def test_a_model_that_transformers_lacks_is_sent_with_its_code_and_the_reason(name, saved, photo, tmp_path):
    model_class, fields, reason = WITH_CODE[name]
    folder = saved(model_class, **fields)
    form = choose_form(folder, tmp_path / "native", native=False, bundle=False)
    assert form.kind == "bundle"
    assert form.architecture is form.folder is None
    with pytest.raises(InexpressibleError, match=reason) as caught:
        choose_form(folder, tmp_path / "native", native=True, bundle=False)
    assert form.feature == caught.value.reason
    assert "train" not in form.feature  # advice is for the person who publishes
    sent = written(folder, tmp_path / "sent")
    assert contents(sent).items() >= contents(folder).items()
    assert answers(sent, photo) == answers(folder, photo)


def test_other_sizes_than_the_position_embeddings_keep_the_code(saved, caplog, tmp_path):
    """transformers' ViT refuses other sizes, and its DINOv2 resamples otherwise."""
    folder = saved(VIT, build_image_processor((24, 24)))
    form = choose_form(folder, tmp_path / "native", native=False, bundle=False)
    assert form.kind == "bundle"
    assert "gives images of 24 x 24 pixels (height x width), and transformers' `vit`" in form.feature
    assert "position embeddings of 32 x 32" in form.feature
    assert choose_form(folder, tmp_path / "native", native=True, bundle=False).kind == "native"
    assert f"{folder}: as a class of transformers it gives other answers: the image processor" in caplog.text


def test_a_processor_without_a_fixed_size_keeps_the_code(saved, tmp_path):
    processor = build_image_processor((32, 32))
    processor.do_center_crop = False
    folder = saved(VIT, processor, **DINO)
    assert choose_form(folder, tmp_path / "native", native=False, bundle=False).kind == "bundle"


def test_a_backbone_without_a_pooler_keeps_the_code(saved, tmp_path):
    """transformers' ViT would add a pooler of random weights, whose output is another at each load."""
    folder = saved(vithub.HubViTModel)
    form = choose_form(folder, tmp_path / "native", native=False, bundle=False)
    assert (form.kind, "pooler with random weights" in form.feature) == ("bundle", True)
    folder = saved(vithub.HubViTModel, **DINO | {"pool": "cls"})
    sent = written(folder, tmp_path / "sent", native=True)
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        theirs, ours = (AutoModel.from_pretrained(place).eval()(pixels) for place in (sent, folder))
    torch.testing.assert_close(theirs.last_hidden_state, ours.last_hidden_state)
    torch.testing.assert_close(theirs.pooler_output, ours.pooler_output)


@pytest.mark.parametrize(("focal", "kind"), [(False, "native"), (True, "bundle")])
def test_detectors_find_the_same_boxes(focal, kind, tiny_detr, randomised, photo, tmp_path):
    folder = tmp_path / "run"
    randomised(vithub.HubDetrForObjectDetection(tiny_detr(focal_loss=focal))).save_pretrained(folder)
    build_box_processor(focal=focal).save_pretrained(folder)
    form = choose_form(folder, tmp_path / "native", native=False, bundle=False)
    assert form.kind == kind
    assert (form.feature is None) == (kind == "native")
    sent = written(folder, tmp_path / "sent")
    loaded = type(AutoModelForObjectDetection.from_pretrained(sent)).__name__
    assert loaded == ("DetrForObjectDetection" if kind == "native" else "HubDetrForObjectDetection")
    expected, found = (pipeline("object-detection", str(place))(photo, threshold=0.0) for place in (folder, sent))
    assert len(expected) == len(found) > 0
    for one, other in zip(expected, found, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert all(abs(one["box"][side] - other["box"][side]) <= 1 for side in one["box"])  # rounded to pixels


def test_the_code_is_sent_where_it_is_asked_for(saved, tmp_path):
    folder = saved(VIT)
    sent = written(folder, tmp_path / "sent", bundle=True)
    assert contents(sent).items() >= contents(folder).items()
    with pytest.raises(ValueError, match="`native` and `bundle` exclude each other"):
        vithub.publish(folder, "ada/model", native=True, bundle=True, dry_run=True)
    for file in folder.glob("*.py"):
        file.unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "auto_map"}))
    with pytest.raises(PublishError, match=r"holds no code \(config.json has no auto_map\), so that `bundle` has"):
        vithub.publish(folder, "ada/model", bundle=True, dry_run=True)
    assert vithub.publish(folder, "ada/model", dry_run=True).form == "native"  # a folder of an older version


def test_models_of_others_are_sent_as_they_are(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])).save_pretrained(
        tmp_path / "run"
    )
    build_image_processor((32, 32)).save_pretrained(tmp_path / "run")
    for options in ({}, {"native": True}):
        assert contents(written(tmp_path / "run", tmp_path / f"sent{len(options)}", **options)).items() >= (
            contents(tmp_path / "run").items()
        )
    with pytest.raises(PublishError, match="the model type 'resnet' is not one of vithub's"):
        vithub.publish(tmp_path / "run", "ada/model", bundle=True, dry_run=True)


def test_the_command_says_which_form_and_why(saved, capsys):
    folder = saved(VIT, pool="mean")

    def said(*options):
        code = run(lambda: app(["publish", str(folder), "ada/model", "--dry-run", *options]))
        shown = capsys.readouterr()
        return code, " ".join((shown.out + shown.err).split())

    code, text = said()
    assert code == 0
    assert "published with its code: transformers' `vit` cannot express this model: pool='mean' (only 'cls')" in text
    assert said("--bundle")[1].endswith("published with its code, as --bundle asks")
    code, text = said("--native")
    assert code == 1
    assert "pool='mean' (only 'cls'); a model trained with --set model.fields.pool=cls has the pooling" in text
    assert said("--native", "--bundle")[0] == 2
    code, text = said("--json")
    assert json.loads(text)["form"] == "bundle"


def test_the_card_of_a_run_says_why_code_is_needed_or_that_none_is(run_folder, tmp_path):
    folder, _, local = run_folder("deit")
    native = (written(folder, tmp_path / "native-sent") / "README.md").read_text()
    bundle = (written(folder, tmp_path / "bundle-sent", bundle=True) / "README.md").read_text()
    assert "no other code is needed to load it" in native
    assert "trust_remote_code" not in native
    assert "It was published with its code by choice." in bundle
    for file in folder.glob("*.py"):
        assert f"| `{file.name}` | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |" in bundle
        assert file.name not in native
    assert "SHA-256" not in local
    (folder / "preprocessor_config.json").unlink()
    build_image_processor((16, 16)).save_pretrained(folder)
    needed = (written(folder, tmp_path / "needed") / "README.md").read_text()
    assert "It needs code because the image processor gives images of 16 x 16 pixels (height x width)" in needed
