"""Annotation files of any content are read, or refused in one line that names the file: never with a traceback."""

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from vithub.data.boxes.checks import inspect_boxes
from vithub.data.boxes.images import read_box_images
from vithub.data.boxes.loading import load_box_data
from vithub.data.boxes.report import BoxReport, check_data
from vithub.data.boxes.sources import read_box_source
from vithub.data.labelled.tables import load_image_data
from vithub.data.sources import DataError

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.integers(), st.just(10**400), st.floats(), st.text(max_size=6),
    st.sampled_from(["0.png", "a" * 300, "\ud800", "\0", "../0.png", "", ".", "/"]),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def entries(**fields):
    """Dictionaries in which each field is right, or anything, or missing; or anything at all."""
    made = st.fixed_dictionaries(
        {}, optional={name: st.one_of(right, right, ANYTHING) for name, right in fields.items()}
    )
    return st.one_of(made, made, ANYTHING)


RIGHT_BOX = st.lists(st.floats(0, 20), min_size=4, max_size=4)
COCO = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {
            "images": st.one_of(
                st.lists(
                    entries(id=st.integers(0, 3), file_name=st.just("0.png"), width=st.just(32), height=st.just(24)),
                    max_size=4,
                ),
                ANYTHING,
            ),
            "annotations": st.one_of(
                st.lists(
                    entries(
                        id=st.integers(0, 9), image_id=st.integers(0, 3), category_id=st.integers(0, 3), bbox=RIGHT_BOX,
                        area=st.floats(0, 99), iscrowd=st.integers(0, 1),
                    ),
                    max_size=4,
                ),
                ANYTHING,
            ),
            "categories": st.one_of(
                st.lists(entries(id=st.integers(0, 3), name=st.text(max_size=3)), max_size=4), ANYTHING
            ),
        }
    ),
)  # fmt: skip


def picture(folder):
    folder.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((32, 24), 60).save(folder / "0.png")


def read_or_refused(source, name):
    """Everything that reads boxes, on a source: what it gives is whole, or a line names the file."""
    for read in (check_data, load_box_data, read_box_images):
        try:
            found = read(source)
        except DataError as error:
            text = str(error)
            assert text, read
            assert "\n" not in text, text
            assert name in text, text
            continue
        if isinstance(found, BoxReport):
            text = json.dumps(found.to_dict(), default=str)
            assert text.encode("utf-8")
            for images in found.checked.images.values():
                for image in filter(None, images):
                    assert (image.boxes >= 0).all()
                    assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
                    assert (image.classes < len(found.checked.source.categories)).all()


@given(COCO)
def test_a_coco_file_of_any_content(content):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "boxes"
        picture(folder)
        (folder / "made.json").write_text(json.dumps(content))
        read_or_refused(
            folder / "made.json" if len(repr(content)) % 2 else folder, "made" if len(repr(content)) % 2 else "boxes"
        )


def coco_bytes(*parts):
    return st.lists(st.sampled_from(parts), max_size=12).map(b"".join)


@given(
    st.binary(max_size=40)
    | coco_bytes(b"[", b"{", b'"images":', b'"annotations":[', b"]", b"}", b",", b"1e999", b"NaN", b"\xff", b'"', b"0")
    | st.sampled_from([b"[" * 100_000, b"9" * 10_000, b"\xef\xbb\xbf{}", b""])
)
def test_a_json_file_of_any_bytes(content):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "boxes"
        picture(folder)
        (folder / "made.json").write_bytes(content)
        read_or_refused(
            folder / "made.json" if len(repr(content)) % 2 else folder, "made" if len(repr(content)) % 2 else "boxes"
        )


XML_PARTS = st.sampled_from(
    ["<annotation>", "</annotation>", "<object>", "</object>", "<bndbox>", "</bndbox>", "<name>", "</name>", "cat", "",
     "<xmin>1</xmin>", "<ymin>2</ymin>", "<xmax>20</xmax>", "<ymax>15</ymax>", "<xmax>nan</xmax>", "<xmin>1e999</xmin>",
     "<xmin>left</xmin>", "<filename>0.png</filename>", f"<filename>{'a' * 300}.png</filename>",
     "<filename>..</filename>",
     "<size><width>32</width><height>24</height></size>", "<size><width>inf</width><height>x</height></size>", "&amp;",
     "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object>",
     "&bomb;", "<!-- -->", '<?xml version="1.0" encoding="x-none"?>', "\u00e9"]
)  # fmt: skip
INSIDE = st.lists(XML_PARTS, max_size=10).map("".join)


@given(st.one_of(INSIDE, INSIDE.map("<annotation>{}</annotation>".format), st.binary(max_size=30)))
def test_a_pascal_voc_file_of_any_content(content):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "boxes"
        picture(folder)
        (folder / "0.xml").write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        read_or_refused(folder, "boxes")


WORDS = st.one_of(
    st.sampled_from(["0", "1", "2", "-1", "nan", "inf", "1e999", "0.5", "0.25", "x", "1_0", "\u0664", "0x10", "\0"]),
    st.floats(0, 1).map(str), st.text(max_size=3),
)  # fmt: skip
LINES = st.lists(st.lists(WORDS, max_size=7).map(" ".join), max_size=4).map("\n".join)
YAML = st.one_of(
    st.dictionaries(
        st.sampled_from(["train", "val", "names", "nc", "path"]),
        st.one_of(st.sampled_from([".", "images", "a" * 300, "list.txt"]), ANYTHING),
    ).map(lambda content: yaml.safe_dump(content).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"names: !!int x\ntrain: .", b"names: !!timestamp x", b"names: &a [*a]\ntrain: .", b"? [1]\n: 2", b"\xff\xfe",
         b"names: !!bool x", b"train: !!binary x", b"names: {a: cat}\ntrain: .", b"names: [cat, cat]\ntrain: .",
         b"names: {0: cat, 0.5: dog}\ntrain: .", b"a: 2001-99-99", b"[" * 3000]
    ),
)  # fmt: skip


@given(LINES | st.binary(max_size=20), YAML | st.none(), LINES | st.none())
def test_yolo_files_of_any_content(labels, description, classes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "boxes"
        picture(folder / "images")
        (folder / "labels").mkdir()
        (folder / "labels" / "0.txt").write_bytes(
            labels if isinstance(labels, bytes) else labels.encode("utf-8", "surrogatepass")
        )
        if description is not None:
            (folder / "data.yaml").write_bytes(description)
        if classes is not None:
            (folder / "classes.txt").write_bytes(classes.encode("utf-8", "surrogatepass"))
        read_or_refused(folder, "boxes")


def test_a_yaml_file_whose_anchors_would_grow_without_bound_is_refused(tmp_path):
    picture(tmp_path / "boxes" / "images")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "boxes" / "data.yaml").write_text("\n".join([*lines, "names: *a11", "train: images"]))
    with pytest.raises(DataError, match="aliases stand for more than"):
        read_box_source(tmp_path / "boxes")


CELLS = st.one_of(st.sampled_from(["0.png", "cat", "dog", "", "NA", "1", '"', "a" * 300]), st.text(max_size=4))


@given(
    st.one_of(
        st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=8).map("\n".join),
        st.lists(st.lists(CELLS, min_size=2, max_size=2).map(",".join), min_size=1, max_size=8).map(
            lambda rows: "\n".join(["image,label", *rows])
        ),
    )
)
def test_a_csv_file_of_any_content(content):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "list"
        picture(folder)
        file = folder / "made.csv"
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        refused = ""
        try:
            data = load_image_data(file, validation_fraction=0.3, test_fraction=0)
        except DataError as error:
            refused = str(error)
        assert "\n" not in refused
        if not refused:
            assert len(data.labels.names) >= 2
            assert sum(data.sizes.values()) > 0


def test_wrong_types_are_named_with_their_place_and_value(coco):
    def wrong(section, field, value):
        def change(content):
            content[section][1][field] = value

        return coco(change, folder=f"{section}-{field}")

    for section, field, value, place in (
        ("images", "id", [1], r"annotations\.json: images\[1\]\.id must be a whole number or a text, got \[1\]"),
        ("images", "file_name", None, r"images\[1\]\.file_name must be the name of a file, got None"),
        ("images", "file_name", {}, r"images\[1\]\.file_name must be the name of a file, got \{\}"),
        ("annotations", "id", {"a": 1}, r"annotations\[1\]\.id must be a whole number or a text, got \{'a': 1\}"),
        ("categories", "id", None, r"categories\[1\]\.id must be a whole number or a text, got None"),
        ("categories", "id", True, r"categories\[1\]\.id must be a whole number or a text, got True"),
        ("categories", "name", ["dog"], r"categories\[1\]\.name must be a text, got \['dog'\]"),
        ("annotations", "image_id", [100], r"annotations\[1\]\.image_id is \[100\]: no image has this id"),
        ("annotations", "category_id", {}, r"annotations\[1\]\.bbox, class is \{\}: the classes are 3, 7, 90"),
        ("annotations", "area", 10**400, r"annotations\[1\]\.bbox, area is 1000"),
    ):
        with pytest.raises(DataError, match=place):
            load_box_data(wrong(section, field, value))


def test_ids_that_are_whole_numbers_as_real_ones_fit(coco):
    def change(content):
        for annotation in content["annotations"]:
            annotation["image_id"] = float(annotation["image_id"])

    checked = inspect_boxes(read_box_source(coco(change)))
    assert checked.faults.total("error", "repairable") == 0
    assert [len(image) for image in checked.images["all"]] == [2, 1, 0, 3, 3, 2, 1, 2]
