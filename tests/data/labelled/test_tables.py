import csv

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vithub.data.labelled.tables import load_image_data, read_labelled_tables
from vithub.data.sources import DataError
from vithub.data.splits import stratified_parts


def save_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value % 256, 0, 0)).save(path)


@pytest.fixture
def class_folders(tmp_path):
    """Two classes of ten images each."""
    for name in ("cat", "dog"):
        for number in range(10):
            save_image(tmp_path / "pets" / name / f"{number}.png", number)
    return tmp_path / "pets"


def table(labels, names=("cat", "dog"), feature=None):
    features = Features({"image": ImageFeature(), "label": feature or ClassLabel(names=list(names))})
    images = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(len(labels))]
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_digits_need_nothing_and_are_split_in_equal_proportion():
    data = load_image_data("digits", test_fraction=0.2)
    assert data.labels.names == tuple("0123456789")
    assert sum(data.sizes.values()) == 1797
    assert data.sizes["test"] == pytest.approx(0.2 * 1797, abs=10)
    counts = np.bincount(data.test["label"])
    assert counts.max() - counts.min() <= 2
    again = load_image_data("digits", test_fraction=0.2)
    assert again.train["label"] == data.train["label"]
    assert load_image_data("digits", split_seed=1).train["label"] != data.train["label"]


def test_class_folders(class_folders):
    data = load_image_data(str(class_folders))
    assert data.labels.names == ("cat", "dog")
    assert data.sizes == {"train": 16, "validation": 2, "test": 2}
    paths = [row["image"]["path"] for split in data.splits.values() for row in split]
    assert len(set(paths)) == 20
    for split in data.splits.values():
        assert all(data.labels.names[row["label"]] in row["image"]["path"] for row in split)


def test_class_folders_below_split_folders(tmp_path):
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("a", "b"):
            for number in range(count):
                save_image(tmp_path / split / name / f"{number}.jpg")
    data = load_image_data(tmp_path)
    assert data.sizes == {"train": 12, "validation": 4, "test": 6}
    assert data.notes == []


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_of_paths_and_names(tmp_path, kind):
    rows = [(f"photos/{i}.png", ["rose", "tulip"][i % 2]) for i in range(20)]
    for path, _ in rows:
        save_image(tmp_path / path)
    file = tmp_path / f"list.{kind}"
    if kind == "csv":
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([("file_name", "species"), *rows])
    else:
        Dataset.from_dict({"file_name": [p for p, _ in rows], "species": [s for _, s in rows]}).to_parquet(file)
    data = load_image_data(str(file))
    assert data.labels.names == ("rose", "tulip")
    assert data.sizes["train"] == 16
    assert data.train[0]["image"]["path"].startswith(str(tmp_path / "photos"))


def test_parquet_folder_with_images_inside(tmp_path):
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        table([0, 1] * 10).to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    data = load_image_data(str(tmp_path / "set"))
    assert data.sizes == {"train": 18, "validation": 2, "test": 20}
    assert data.train[0]["image"]["bytes"][:4] == b"\x89PNG"


def test_numbers_and_flags_are_labels_too():
    feature = Value("int64")
    data = load_image_data(DatasetDict(train=table([7, 3] * 5, feature=feature), test=table([3, 7], feature=feature)))
    assert data.labels.names == ("3", "7")
    assert data.test["label"] == [0, 1]


def test_several_labels_per_image():
    feature = List(ClassLabel(names=["red", "big", "old"]))
    data = load_image_data(table([[0], [1, 2], [], [0, 1]] * 6, feature=feature))
    assert data.labels.multi_label
    assert sorted(map(tuple, data.train["label"])) == sorted(
        set(map(tuple, data.train["label"])) and map(tuple, data.train["label"])
    )
    assert {tuple(row) for row in data.train["label"]} == {(0,), (1, 2), (), (0, 1)}


def test_columns_and_splits_can_be_named():
    tables = DatasetDict(a=table([0, 1] * 5), b=table([0, 1]))
    data = load_image_data(tables, train_split="a", validation_split="b", test_split="b", label_column="label")
    assert data.sizes == {"train": 10, "validation": 2, "test": 2}


def test_a_set_to_evaluate_on_is_not_cut(class_folders):
    read = read_labelled_tables(class_folders)
    assert {name: len(split) for name, split in read.tables.items()} == {"train": 20}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("/nowhere/at/all", {}, "no data set at /nowhere/at/all"),
        (lambda: table([0, 0, 0], names=["cat"]), {}, "only the class 'cat'"),
        (lambda: table([0, 0, 0, 0] * 5, names=["cat", "dog"]), {}, "no training image has the class dog"),
        (
            lambda: table([0, 1] * 5),
            {"label_column": "species"},
            "no label column 'species', which `label_column` names; the columns are: label",
        ),
        (
            lambda: table([0, 1] * 5),
            {"image_column": "photo"},
            "no image column 'photo', which `image_column` names; the columns are: image",
        ),
        (
            lambda: table([0, 1] * 5),
            {"test_split": "final"},
            "no split 'final' for test, which `test_split` names; the splits are: train",
        ),
        (lambda: DatasetDict(x=table([0, 1]), y=table([0, 1])), {}, "no training split among: x, y"),
        (lambda: table([0, 1, -1] * 5), {}, "row 2 of split 'train' has the label -1.*cat, dog, numbered 0 to 1"),
        (lambda: table([0, 1, None] * 5), {}, "row 2 of split 'train' has the label None"),
        (
            lambda: table(["cat", "dog", " "] * 5, feature=Value("string")),
            {},
            "row 2 of split 'train' .* ' '; .* cat, dog",
        ),
        (lambda: table([0.5, 1.5] * 5, feature=Value("float32")), {}, "must hold class labels, whole numbers or names"),
        (lambda: table([0, 1]), {}, "2 images are too few"),
        (lambda: table([0, 1] * 5), {"validation_fraction": 0.6, "test_fraction": 0.5}, "together, got 0.6 and 0.5"),
        (lambda: Dataset.from_dict({"x": [1]}), {}, "no image column was found among: x; name it with `image_column`"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_named(source, options, message):
    with pytest.raises(DataError, match=message):
        load_image_data(source() if callable(source) else source, **options)


@pytest.mark.parametrize(
    ("images", "told"),
    [([1, 2] * 5, "int64"), ([True] * 10, "bool"), ([0.5] * 10, "float64"), ([[1, 2]] * 10, "lists of int64")],
)
def test_a_column_that_holds_no_images_is_named_with_its_type(images, told):
    data = Dataset.from_dict({"image": images, "label": ["cat", "dog"] * 5})
    with pytest.raises(DataError, match=rf"column 'image' must hold images, paths .*, got {told}$"):
        load_image_data(data)


def test_a_class_without_images_is_named(class_folders):
    (class_folders / "eel").mkdir()
    with pytest.raises(DataError, match=r"class 'eel' has no images in .*eel"):
        load_image_data(class_folders)


def test_an_empty_folder_and_a_mixture_are_named(tmp_path, class_folders):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither Parquet files nor one folder"):
        load_image_data(tmp_path / "empty")
    save_image(class_folders / "train" / "cat" / "1.png")
    told = r"mixes folders of splits \(\['train'\]\) and others \(\['cat', 'dog'\]\): put .* as train/cat, or move"
    with pytest.raises(DataError, match=told):
        load_image_data(class_folders)


def test_a_label_that_only_the_test_split_has_is_part_of_the_set():
    tables = DatasetDict(
        train=table(["a", "b"] * 5, feature=Value("string")), test=table(["c"], feature=Value("string"))
    )
    told = "no training image has the class c, which a DatasetDict in memory names: add training images of it, or re"
    with pytest.raises(DataError, match=told):
        load_image_data(tables)


@pytest.mark.parametrize("missing", [-1, None])
def test_a_test_split_without_labels_is_left_out_and_told(missing, caplog):
    tables = DatasetDict(train=table([0, 1] * 10), validation=table([0, 1]), test=table([missing] * 3))
    data = load_image_data(tables)
    assert (data.reported, set(data.sizes)) == ("validation", {"train", "validation"})
    told = "the test split has no labels (all of its 3 are missing or -1) and is left out"
    assert told in data.notes
    assert told in caplog.text
    with pytest.raises(DataError, match="row 0 of split 'test'"):  # named, it must have them
        load_image_data(tables, test_split="test")
    with pytest.raises(DataError, match="row 1 of split 'test'"):  # some labels missing is a fault
        load_image_data(tables | {"test": table([0, missing])})


@pytest.mark.parametrize("own", [False, True])
def test_a_class_of_which_no_image_is_measured_is_told(own, caplog):
    """One image goes to the training; the figures then say nothing about the class."""
    labels = [0, 1] * 10 + [2]
    given = {"train": table(labels, names=["cat", "dog", "eel"])}
    given |= {"validation": table([0, 1], names=["cat", "dog", "eel"])} if own else {}
    data = load_image_data(DatasetDict(given))
    split, advice = ("validation", "add images of each to it") if own else ("test", "give each 3 images or more")
    assert 2 not in data.splits[split]["label"]
    (note,) = [note for note in data.notes if "eel" in note]
    assert note == (
        f"the {split} split has no image of eel (trained on 1), so that its figures do not tell whether such images "
        f"are recognised; {advice}"
    )
    assert note in caplog.text


@given(
    classes=st.lists(st.integers(0, 4), min_size=1, max_size=120),
    fractions=st.tuples(st.floats(0.05, 0.4), st.floats(0.0, 0.4)),
    seed=st.integers(0, 5),
)
def test_parts_are_disjoint_complete_and_proportional(classes, fractions, seed):
    parts = stratified_parts(classes, fractions, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(classes)))
    values = np.asarray(classes)
    for part, fraction in zip(parts, fractions, strict=False):
        for value in set(classes):
            total, got = (values == value).sum(), (values[part] == value).sum()
            assert abs(got - fraction * total) <= 1
            if total > 2 and fraction:
                assert got >= 1
