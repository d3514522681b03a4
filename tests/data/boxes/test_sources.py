import json
import re
import shutil

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from vithub.data.boxes.checks import inspect_boxes
from vithub.data.boxes.loading import guard, load_box_data
from vithub.data.boxes.sources import read_box_source
from vithub.data.sources import DataError


def check(source, **options):
    """Everything of a source in order, as [(size, [(corners, class name)])], after it passed the guard."""
    checked = inspect_boxes(read_box_source(source), **options)
    guard(checked)
    names = list(checked.source.categories.values())
    return {
        split: [
            (
                (image.width, image.height),
                [(tuple(b), names[c]) for b, c in zip(image.boxes, image.classes, strict=True)],
            )
            for image in images
        ]
        for split, images in checked.images.items()
    }


def same(found, scenes, names=("cat", "dog", "bird")):
    """Whether all images and boxes are those of the scenes, to a thousandth of a pixel."""
    assert len(found) == len(scenes)
    for (size, boxes), (wanted, objects) in zip(found, scenes, strict=True):
        assert size == wanted
        assert [name for _, name in boxes] == [names[number] for _, number in objects]
        np.testing.assert_allclose([b for b, _ in boxes], [b for b, _ in objects], atol=1e-3)


def test_coco_pascal_yolo_and_a_table_of_the_same_scenes_are_the_same(coco, voc, yolo, table, scenes):
    for source in (coco(), voc(), yolo(), table()):
        (found,) = check(source).values()
        same(found, scenes)


def test_category_ids_with_gaps_are_numbered_from_0_and_kept(coco):
    data = load_box_data(coco(), validation_fraction=0.2, test_fraction=0)
    assert data.classes.names == ("cat", "dog", "bird")
    assert data.classes.source_ids == (3, 7, 90)
    assert data.classes.integer_image_ids
    assert {number for row in data.train["classes"] for number in row} <= {0, 1, 2}
    assert any("numbered 0 to 2" in note for note in data.notes)


def test_coco_folders_find_their_splits_and_leave_captions_alone(coco, tmp_path, scenes):
    file = coco()
    root = tmp_path / "set"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        shutil.copytree(file.parent / "images", root / split)
        shutil.copy(file, root / "annotations" / f"instances_{split}.json")
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps({"images": [], "annotations": [{}]}))
    found = check(root)
    assert list(found) == ["train", "validation"]
    for images in found.values():
        same(images, scenes)


def test_one_folder_per_split_with_its_own_file(coco, tmp_path, scenes):
    file = coco()
    root = tmp_path / "exported"
    for split in ("train", "valid", "test"):
        shutil.copytree(file.parent / "images", root / split)
        shutil.copy(file, root / split / "_annotations.coco.json")
    found = check(root)
    assert set(found) == {"train", "validation", "test"}
    same(found["test"], scenes)


def test_two_coco_files_of_one_split_are_told(coco, tmp_path):
    file = coco()
    shutil.copy(file, file.with_name("copy.json"))
    with pytest.raises(DataError, match=r"annotations\.json and .*copy\.json are both of the split 'all'"):
        read_box_source(file.parent)


def test_crowds_and_images_without_boxes_are_kept_as_such(coco):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1

    checked = inspect_boxes(read_box_source(coco(change)))
    guard(checked)
    images = checked.images["all"]
    assert images[0].crowd.tolist() == [True, False]
    assert len(images[2]) == 0
    assert images[2].boxes.shape == (0, 4)


def test_annotations_of_no_image_are_told_with_the_id(coco):
    def change(content):
        content["annotations"][1]["image_id"] = "100"

    with pytest.raises(DataError, match=r"annotations\[1\]\.image_id is '100': no image has this id \(the same text"):
        load_box_data(coco(change))


@pytest.mark.parametrize("first", [0, 1])
def test_pascal_coordinates_count_from_1_unless_one_is_0(voc, scenes, first):
    (found,) = check(voc(first)).values()
    same(found, scenes)


def test_pascal_lists_are_the_splits(voc):
    data = load_box_data(voc(sets={"train": [0, 1, 3, 4], "val": [2, 5], "test": [6, 7], "trainval": range(6)}))
    assert data.sizes == {"train": 4, "validation": 2, "test": 2}
    assert data.validation["image_id"] == ["2", "5"]


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_xml_that_declares_entities_is_refused(voc, head):
    root = voc()
    file = root / "Annotations" / "3.xml"
    file.write_text(head + file.read_text().replace("cat", "&c;"))
    with pytest.raises(DataError, match=r"3\.xml cannot be read: a document type"):
        read_box_source(root)


def test_damaged_xml_and_json_are_named(voc, coco):
    root = voc()
    (root / "Annotations" / "3.xml").write_text("<annotation><object>")
    with pytest.raises(DataError, match=r"3\.xml cannot be read"):
        read_box_source(root)
    file = coco()
    file.write_text(file.read_text()[:300])
    with pytest.raises(DataError, match=r"annotations\.json cannot be read"):
        read_box_source(file)


def test_an_image_of_pascal_whose_annotations_are_missing_is_told_of(voc, tmp_path):
    root = voc()
    (root / "Annotations" / "3.xml").unlink()
    (note,) = [text for text in read_box_source(root).notes if "annotation file" in text]
    assert re.fullmatch(r"1 image without an annotation file left out, such as \S+/3\.\w+, which lacks 3\.xml", note)


def test_a_class_of_spaces_in_pascal_is_a_fault_with_its_value(voc):
    root = voc()
    file = root / "Annotations" / "3.xml"
    file.write_text(re.sub("<name>[^<]+</name>", "<name>  </name>", file.read_text(), count=1))
    checked = inspect_boxes(read_box_source(root))
    assert set(checked.source.categories) == {"bird", "cat", "dog"}
    assert [(fault.kind, fault.value) for fault in checked.faults.of("error")] == [("class id", "  ")]


@pytest.mark.parametrize("link", [False, True])
def test_what_stands_in_the_place_of_a_file_of_labels_is_refused(link, yolo):
    root = yolo()
    file = next(root.rglob("3.txt"))
    file.unlink()
    if link:
        file.symlink_to(root / "gone.txt")
    else:
        file.mkdir()
    with pytest.raises(DataError, match=r"3\.txt is a (folder|link to a file that is not there), and should be"):
        check(root)


def test_yolo_without_a_description_is_called_by_numbers(yolo, scenes):
    (found,) = check(yolo(described=False)).values()
    same(found, scenes, names=("0", "1", "2"))


@pytest.mark.parametrize("text", ["", "train: images/train\nnc: 3", "train: images/train\nnames: 3", "[1]"])
def test_a_yolo_description_without_classes_is_refused_by_name(text, yolo):
    root = yolo()
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml names no classes: add `names`"):
        read_box_source(root)


def test_yolo_polygons_become_their_boxes(yolo):
    root = yolo()
    (root / "labels" / "train" / "6.txt").write_text("2 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n")
    (found,) = check(root).values()
    assert found[6][1] == [((16.0, 12.0, 48.0, 36.0), "bird")]


def test_a_folder_without_boxes_says_what_it_could_be(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"neither COCO's \.json, Pascal VOC's \.xml, YOLO's folders"):
        read_box_source(tmp_path)


def test_objects_may_be_a_list_of_dictionaries_and_names_may_be_text(table, scenes):
    rows = [
        {"image": row["image"], "objects": [
            {"bbox": box, "label": ("cat", "dog", "bird")[number]}
            for box, number in zip(row["objects"]["bbox"], row["objects"]["category"], strict=True)
        ]}
        for row in table()
    ]  # fmt: skip
    features = Features(
        {"image": ImageFeature(), "objects": List({"bbox": List(Value("float32")), "label": Value("string")})}
    )
    (found,) = check(Dataset.from_list(rows, features=features)).values()
    same(found, scenes)


def test_a_table_without_objects_or_with_unequal_lists_is_told(table):
    with pytest.raises(DataError, match="no column of objects"):
        read_box_source(table().remove_columns("objects"))

    def change(rows):
        rows[3]["objects"]["category"].pop()

    with pytest.raises(DataError, match=r"row 3 of split 'train': objects has lists of unequal lengths"):
        read_box_source(table(change))


def test_splits_are_drawn_with_the_rarest_class_in_proportion():
    names = ClassLabel(names=["common", "rare"])
    features = Features({"image": ImageFeature(), "objects": {"bbox": List(List(Value("float32"))),
                                                             "category": List(names)}})  # fmt: skip
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    rows = [
        {"image": image, "objects": {"bbox": [[0, 0, 4, 4]] * 2, "category": [0, int(number % 5 == 0)]}}
        for number in range(50)
    ]
    data = load_box_data(Dataset.from_list(rows, features=features), validation_fraction=0.2, test_fraction=0.2)
    assert data.sizes == {"train": 30, "validation": 10, "test": 10}
    assert [sum(1 in row for row in split["classes"]) for split in data.splits.values()] == [6, 2, 2]


def test_a_split_without_boxes_in_training_is_told(table):
    empty = table(lambda rows: [row["objects"].update(bbox=[], category=[]) for row in rows])
    with pytest.raises(DataError, match=r"no training image .* has a box"):
        load_box_data(DatasetDict(train=empty, validation=table(), test=table()))
