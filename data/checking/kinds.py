"""Kinds of faults in data sets of labelled photos, with their severity."""

from ..boxes.faults import Severity

# Severity and description of each kind. Errors stop training, or make its results worthless.
PHOTO_KINDS: dict[str, tuple[Severity, str]] = {
    "bad image": ("error", "the image is missing, or is not an image that can be decoded"),
    "truncated image": ("error", "the image ends before its last pixel"),
    "wrong extension": ("warning", "the file's extension is that of another format than its content"),
    "exif rotation": ("note", "EXIF turns the image, which is trained on as viewers show it"),
    "colour mode": ("note", "the image is not RGB and is converted"),
    "transparency": ("note", "the image has transparent pixels, whose transparency is dropped"),
    "depth": ("note", "the image has more than 8 bits per channel, or 1, and is scaled to 8"),
    "animation": ("note", "the image has several frames, of which the first is read"),
    "blank image": ("warning", "all pixels of the image have the same colour"),
    "small image": ("warning", "the image is far smaller than the others"),
    "large image": ("warning", "the image is far larger than the others"),
    "aspect ratio": ("warning", "one side of the image is more than 4 times the other; cropping loses most of it"),
    "missing label": ("error", "the image has no label"),
    "unknown label": ("error", "the label is not among the classes"),
    "too few classes": ("error", "classification needs two classes or more"),
    "empty class": ("error", "no image to train on has the class"),
    "absent class": ("warning", "the split has no image of a class that is trained on"),
    "similar class names": ("warning", "the names of two classes differ only in case, spaces or Unicode form"),
    "class of few": ("warning", "the class has fewer than 5 images to train on"),
    "unbalanced classes": ("warning", "the largest class has 10 times the images of the smallest, or more"),
    "same image twice": ("error", "the same file is in two splits, or twice in one that will be divided"),
    "repeated image": ("warning", "the same file is in its split twice"),
    "two labels": ("error", "the same file has two different labels"),
    "near duplicate across splits": ("warning", "the image looks like one of another split"),
    "near duplicate": ("warning", "the image looks like another one of its split"),
    "near duplicate with another label": ("warning", "the image looks like another one that has another label"),
    "likely wrong label": ("warning", "a classifier that has not seen the image is sure of another class"),
}

__all__ = ["PHOTO_KINDS"]
