import re
import shutil

import numpy as np
import pytest
from PIL import Image
from vithub.data.sources import DataError
from vithub.hub.folders import TargetError
from vithub.training.finetuning import finetune
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.recipe.resumable import refused_changes
from vithub.training.run_folder import read_run_recipe, write_recipe


def content(folder):
    """Every file below a folder, byte for byte, and when it was changed."""
    return {
        file.relative_to(folder): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_folder_that_holds_another_run_is_refused_and_nothing_in_it_changes(finished_run, train):
    before = content(finished_run.folder)
    with pytest.raises(TargetError, match=rf"{re.escape(str(finished_run.folder))} holds another run"):
        train(finished_run.folder)
    assert content(finished_run.folder) == before


def test_a_folder_with_other_files_is_refused_and_nothing_in_it_changes(train, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    before = content(tmp_path)
    with pytest.raises(TargetError, match="holds files already"):
        train(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("target", ["file", "file/run"])
def test_a_target_that_cannot_be_written_is_named_before_anything_is_computed(target, train, tmp_path, listener):
    (tmp_path / "file").write_text("kept")
    told = listener()
    with pytest.raises(TargetError, match=re.escape(target)):
        train(tmp_path / target, reporter=told)
    assert told.losses == []
    assert (tmp_path / "file").read_text() == "kept"


def test_resuming_with_another_recipe_is_refused_and_the_fields_are_named(finished_run, train):
    before = content(finished_run.folder)
    with pytest.raises(RecipeError) as caught:
        train(finished_run.folder, {"training.lr": 0.25, "training.warmup": 2}, resume=True)
    assert "training.lr is 0.004, not 0.25" in str(caught.value)
    assert "training.warmup is 1.0, not 2.0" in str(caught.value)
    assert "training.epochs" in str(caught.value).partition("what may change")[2]
    assert "batch_size" not in str(caught.value)
    assert content(finished_run.folder) == before


def test_a_field_without_effect_on_the_task_does_not_keep_a_run_from_being_resumed():
    """Version 0.1 wrote label_smoothing 0.0 for detectors, whose labels are not smoothed at all."""
    fields = {
        "training.label_smoothing": 0.0,
        "augmentation.mixup": 0.5,
        "distillation.alpha": 0.25,
        "lora.dropout": 0.5,
    }
    for task, ours in (("detection", []), ("classification", sorted(fields))):
        recipe = Recipe.from_dict({"task": task})
        refused = refused_changes(recipe.with_values(fields), recipe)
        assert [text.partition(" is ")[0] for text in refused] == ours
        assert len(refused_changes(recipe.with_values({"training.lr": 0.5}), recipe)) == 1


def test_a_detector_of_version_0_1_is_resumed_with_its_preset_stated(
    detector_run, detector_data, quick_detector, tmp_path
):
    folder = shutil.copytree(detector_run.folder, tmp_path / "run")
    write_recipe(folder, read_run_recipe(folder).with_values({"training.label_smoothing": 0.0}))
    options = {"data": detector_data, "output": folder, "preset": "detr-small-data", "resume": True}
    run = finetune(**options, values=quick_detector())
    assert (folder / "model.safetensors").read_bytes() == (detector_run.folder / "model.safetensors").read_bytes()
    assert run.metrics["changes"] == []
    with pytest.raises(RecipeError, match=r"training\.label_smoothing 0\.3 has no effect on task detection"):
        finetune(**options, values=quick_detector({"training.label_smoothing": 0.3}))


@pytest.mark.parametrize("exists", [True, False])
def test_there_must_be_a_run_to_resume(exists, tmp_path):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(TargetError, match=r"run holds no run to resume"):
        finetune(output=folder, resume=True)
    assert list(tmp_path.rglob("*")) == ([folder] if exists else [])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"data": "/no/such/place"}, DataError),
        ({"values": {"model.fields": {"num_attention_heads": 5}}}, ValueError),
        ({"values": {"data.label_column": "species"}}, DataError),
        ({"values": {"training.batch_size": 30, "training.accumulation": 4}}, RecipeError),
    ],
)
def test_a_run_that_could_not_begin_leaves_its_target_free(options, error, train, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(error):
        train(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("values", [{"num_attention_heads": 5}, {"hiden_size": 32}, {"drop_path_rate": 1.5}])
def test_a_wrong_field_of_the_model_is_named_with_its_value(values, train, quick, tmp_path):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=rf"{name}.*({value}|did you mean)"):
        train(tmp_path / "run", {"model.fields": quick()["model.fields"] | values})


@pytest.fixture
def odd_images(tmp_path):
    """Two classes of images smaller than a patch, and in many modes."""
    modes = ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "RGB", "RGB"]
    for label in ("dark", "light"):
        for number, mode in enumerate(modes):
            grey = Image.new("L", (3 + number % 2, 2), 200 if label == "light" else 20)
            image = Image.new("I;16", grey.size, 51400 if label == "light" else 5140) if mode == "I;16" else grey
            file = tmp_path / "odd" / label / f"{number}.{'tif' if mode == 'CMYK' else 'png'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            (image if mode in ("L", "I;16") else image.convert(mode)).save(file)
    return tmp_path / "odd"


def test_images_of_every_mode_and_smaller_than_a_patch_are_learned_from(odd_images, train, tmp_path):
    values = {"training.epochs": 12, "training.batch_size": 8, "data.validation_fraction": 0.2}
    run = train(tmp_path / "run", values, data=odd_images)
    assert run.metrics["data"]["sizes"]["train"] == 12
    assert run.metrics["test"]["accuracy"] == 1.0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_cut_short_stops_the_training_and_is_named_in_one_line(workers, odd_images, train, tmp_path):
    whole = Image.effect_noise((64, 64), 90)
    for label in ("dark", "light"):
        for number in range(10):
            whole.save(odd_images / label / f"{number}.jpg")
    victim = odd_images / "dark" / "3.jpg"
    victim.write_bytes(victim.read_bytes()[:900])
    values = {"training.batch_size": 8, "data.workers": workers, "data.validation_fraction": 0.05}
    with pytest.raises(ValueError, match=r"dark/3\.jpg: .*truncated") as caught:
        train(tmp_path / "run", values | {"data.test_fraction": 0.05}, data=odd_images)
    assert type(caught.value).__name__ == "BadImageError"
    assert "\n" not in str(caught.value)
    assert "on_bad_image='skip'" in str(caught.value)
    assert "data.max_bad_share" in str(caught.value)
    assert not (tmp_path / "run").exists()  # it was found before the first step


def test_damage_that_only_decoding_finds_names_the_way_out_too(odd_images, train, tmp_path):
    generator = np.random.default_rng(0)  # Pillow's own noise depends on what ran before
    for label in ("dark", "light"):
        for number in range(10):
            noise = generator.integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(noise).save(odd_images / label / f"{number}.png")
    victim = odd_images / "dark" / "3.png"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    victim.write_bytes(content)
    values = {"training.batch_size": 8, "data.validation_fraction": 0.05, "data.test_fraction": 0.05}
    with pytest.raises(ValueError, match=r"dark/3\.png: .*on_bad_image='skip'.*data\.max_bad_share"):
        train(tmp_path / "run", values, data=odd_images)


@pytest.mark.parametrize("number", [4, 2**64])
def test_freezing_more_layers_than_there_are_is_refused(number, train, tmp_path):
    with pytest.raises(RecipeError, match=rf"training\.freeze: must be at most 3, .*got {number}"):
        train(tmp_path / "run", {"training.freeze": number})
