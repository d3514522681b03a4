"""Folders of labelled photos without a fault, for tests that put one in."""

import pytest
from smooth_photos import smooth_photo


@pytest.fixture
def photos(tmp_path):
    """Makes a folder of class folders, split or not; `photos()` has no fault that is not a note."""

    def make(splits=("train", "validation", "test"), classes=("rose", "tulip"), count=6, name="set"):
        root = tmp_path / name
        seed = 0
        for split in splits or ("",):
            for label in classes:
                folder = root / split / label
                folder.mkdir(parents=True)
                for number in range(count):
                    seed += 1
                    smooth_photo(seed).save(folder / f"{number}.jpg", quality=92)
        return root

    return make
