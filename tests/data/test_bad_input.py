import io

import numpy as np
import pyarrow.parquet
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List
from datasets import Image as ImageFeature
from PIL import Image, ImageOps
from vithub.data.image_processing import build_image_processor
from vithub.data.images import BadImageError
from vithub.data.labelled.augmentation import TrainTransform
from vithub.data.labelled.augmentation_settings import Augmentation
from vithub.data.labelled.dataset import EvaluationTransform, LabelledImages
from vithub.data.labelled.tables import load_image_data
from vithub.data.sources import DataError
from vithub.data.streaming.tables import load_streamed_data


@pytest.fixture
def class_folders(tmp_path):
    """Two classes of ten images each."""
    for name, value in (("cat", 30), ("dog", 220)):
        for number in range(10):
            file = tmp_path / "pets" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 5), (value, number, 0)).save(file)
    return tmp_path / "pets"


def write_table(folder, lines):
    file = folder / "list.csv"
    file.write_text("image,label\n" + "".join(f"{line}\n" for line in lines))
    return file


def evaluated(data, split="train"):
    """All images of a split as an evaluation sees them."""
    transform = EvaluationTransform(build_image_processor((8, 8), crop_ratio=1.0))
    images = LabelledImages(data.splits[split], transform, name=split)
    return [images[number] for number in range(len(images))]


def test_a_folder_of_images_without_classes_is_told(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    told = "neither Parquet files nor one folder of images per class: it holds 1 image directly; move those of"
    with pytest.raises(DataError, match=told):
        load_image_data(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("labels.csv", "it holds labels.csv; to read a table of images and labels, name the file itself"),
        ("notes.txt", r"it holds only 1 \.txt; an image is .*\.png"),
        (None, "it is empty"),
    ],
)
def test_what_a_folder_without_classes_holds_is_told(name, told, tmp_path):
    if name is not None:
        (tmp_path / name).write_text("image,label\n")
    with pytest.raises(DataError, match=f"one folder of images per class: {told}"):
        load_image_data(tmp_path)


def test_a_model_is_no_data_set(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="is the folder of a model, and wanted here is one with a folder of images per"):
        load_image_data(tmp_path)


def test_an_image_is_no_data_set(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    told = r"1\.png is no data set: give a folder with one folder of images per class, or a .csv, .* got \.png"
    with pytest.raises(DataError, match=told):
        load_image_data(tmp_path / "1.png")


def test_a_single_class_folder_is_told(class_folders):
    for file in (class_folders / "dog").iterdir():
        file.unlink()
    (class_folders / "dog").rmdir()
    with pytest.raises(DataError, match=r"only the class 'cat' \(column 'label'\), and a classifier needs two or more"):
        load_image_data(class_folders)


def test_a_class_that_one_split_lacks_is_named_with_its_folder(class_folders):
    for split in ("train", "test"):
        (class_folders / split).mkdir()
    (class_folders / "cat").rename(class_folders / "train" / "cat")
    (class_folders / "dog").rename(class_folders / "test" / "dog")
    with pytest.raises(DataError, match=r"class '(cat|dog)' has no images in .*(test/cat|train/dog)"):
        load_image_data(class_folders)


def test_files_that_are_no_images_are_left_alone(class_folders):
    (class_folders / "cat" / "Thumbs.db").write_bytes(b"x")
    (class_folders / "cat" / "notes.txt").write_text("x")
    (class_folders / "readme.md").write_text("x")
    (class_folders / ".cache").mkdir()
    assert sum(load_image_data(class_folders).sizes.values()) == 20


def test_capitals_in_a_files_ending_are_no_matter(class_folders):
    for file in (class_folders / "cat").iterdir():
        file.rename(file.with_suffix(".PNG"))
    assert sum(load_image_data(class_folders).sizes.values()) == 20


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", b""),
        ("list.csv", b"image,label\n"),
        ("list.csv", b"\xff\xfe\x00\x80"),
        ("list.csv", b'image,label\n"1.png,cat\n'),
        ("list.parquet", b"PAR1"),
        ("folder/list.parquet", b"no Parquet"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_in_one_line(name, content, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name.split('/')[0]} cannot be read: ") as caught:
        load_image_data(tmp_path / name.split("/")[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("line", "row"), [("pets/cat/3.png,", 3), ("pets/cat/3.png,NA", 3)])
def test_a_row_without_a_label_is_named(class_folders, line, row):
    rows = [f"pets/{name}/{number}.png,{name}" for name in ("cat", "dog") for number in range(10)]
    rows[row] = line
    with pytest.raises(DataError, match=f"row {row} of split 'train' has the label None; the labels are cat, dog"):
        load_image_data(write_table(class_folders.parent, rows))


@pytest.mark.parametrize("label", [2, -1, 99])
@pytest.mark.parametrize("several", [False, True])
def test_a_label_outside_the_set_is_named_with_its_row(label, several, tmp_path):
    kind = ClassLabel(names=["cat", "dog"])
    features = Features({"image": ImageFeature(), "label": List(kind) if several else kind})
    images = [Image.new("RGB", (4, 4)) for _ in range(12)]
    labels = [[0], [0, 1]] * 6 if several else [0, 1] * 6
    stored = Dataset.from_dict({"image": images, "label": labels}, features=features).data.table
    # a file may hold what its own description does not allow
    labels[7] = [0, label] if several else label
    column = stored.schema.get_field_index("label")
    wrong = pyarrow.array(labels, stored.schema.field(column).type)
    pyarrow.parquet.write_table(
        stored.set_column(column, stored.schema.field(column), wrong), tmp_path / "pets.parquet"
    )
    with pytest.raises(DataError, match=rf"row 7 of split 'train' has the label .*{label}.*cat, dog, numbered 0 to 1"):
        load_image_data(tmp_path / "pets.parquet")


def test_a_missing_file_is_named_when_it_is_read(class_folders):
    rows = [f"pets/{name}/{number}.png,{name}" for name in ("cat", "dog") for number in range(10)]
    (class_folders / "cat" / "4.png").unlink()
    data = load_image_data(write_table(class_folders.parent, rows), validation_fraction=0.05, test_fraction=0.05)
    with pytest.raises(BadImageError, match=r"pets/cat/4\.png: no such file"):
        [evaluated(data, split) for split in data.splits]


def test_a_row_without_an_image_is_named(class_folders):
    images = [Image.new("RGB", (4, 4)), None] * 10
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    table = Dataset.from_dict({"image": images, "label": [0, 1] * 10}, features=features)
    data = load_image_data(DatasetDict(train=table, validation=table, test=table))
    with pytest.raises(BadImageError, match=r"row 1 of split 'train'"):
        evaluated(data)


def test_damaged_bytes_within_a_table_are_named_by_row():
    stream = io.BytesIO()
    Image.effect_noise((32, 32), 80).save(stream, "JPEG")
    whole, cut = stream.getvalue(), stream.getvalue()[:200]
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=["a", "b"])})
    contents = [{"bytes": cut if number == 5 else whole, "path": None} for number in range(12)]
    table = Dataset.from_dict({"image": contents, "label": [0, 1] * 6}, features=features)
    data = load_image_data(DatasetDict(train=table, validation=table, test=table))
    with pytest.raises(BadImageError, match=r"row 5 of split 'train': .*(?i:truncated)"):
        evaluated(data)


@pytest.mark.parametrize("crop", ["random_resized", "simple", "padded", "none"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 40), (200, 3)])
def test_images_smaller_than_a_patch_or_very_long_have_the_models_size(size, crop):
    image = Image.effect_noise(size, 50).convert("RGB")
    torch.manual_seed(0)
    for height, width in ((8, 8), (8, 12)):
        transform = TrainTransform(Augmentation(crop=crop), (height, width), [0.5] * 3, [0.5] * 3)
        assert transform(image).shape == (3, height, width)
        processor = build_image_processor((height, width))
        assert EvaluationTransform(processor)(image).shape == (3, height, width)


def test_photos_are_upright_in_training_and_in_evaluation(tmp_path):
    upright = Image.fromarray(np.kron(np.array([[250, 20], [20, 20]], dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = ImageOps.exif_transpose(upright).rotate(90, expand=True).convert("RGB")
    for name in ("a", "b"):
        for number in range(4):
            file = tmp_path / "photos" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            if number % 2:
                turned.save(file, exif=exif)
            else:
                upright.convert("RGB").save(file)
    data = load_image_data(tmp_path / "photos", validation_fraction=0.25, test_fraction=0.25)
    seen = [sample["pixel_values"] for split in data.splits for sample in evaluated(data, split)]
    assert len(seen) == 8
    assert all(torch.equal(pixels, seen[0]) for pixels in seen)


@pytest.mark.parametrize(("name", "content"), [("train.parquet", b"PAR1 is not all"), ("train.tar", b"no archive")])
def test_a_damaged_file_to_stream_is_named_in_one_line(name, content, tmp_path):
    (tmp_path / "stream").mkdir()
    (tmp_path / "stream" / name).write_bytes(content)
    for source in (tmp_path / "stream", tmp_path / "stream" / name):
        with pytest.raises(DataError, match=rf"{source.name}.* (cannot be read|are not known)") as caught:
            load_streamed_data(source, labels=["a", "b"])
        assert "\n" not in str(caught.value)
