"""Fixtures of the training tests."""

import io

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List
from matplotlib.figure import Figure
from pictures import save_blank
from vithub.data.digits import digits_dataset
from vithub.training.finetuning import finetune
from vithub.training.recipe.recipe import Recipe
from vithub.training.runtime.progress import QuietReporter

import vithub

# A ViT of 20,000 parameters that sees digits of 12 x 12 pixels without their labels, in fp32 and in this process.
PRETRAINING = {
    "model.source": "vit-ti/4",
    "model.image_size": 12,
    "model.fields": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "initializer_range": 0.1},
    "data.workers": 0,
    "data.test_fraction": 0.2,
    "data.validation_fraction": 0.1,
    "augmentation.crop": "padded",
    "augmentation.horizontal_flip": 0.0,
    "training.epochs": 2,
    "training.batch_size": 40,
    "training.lr": 4e-3,
    "training.lr_batch": None,
    "training.warmup": 1,
    "training.warmup_unit": "epochs",
    "training.precision": "fp32",
    "training.trackers": [],
    "evaluation.crop_ratio": 1.0,
}
METHODS = {
    "mae": {"pretraining.decoder_width": 16, "pretraining.decoder_layers": 1, "pretraining.decoder_heads": 2},
    "dino": {
        "pretraining.prototypes": 32, "pretraining.projection_width": 32, "pretraining.bottleneck_width": 16,
        "pretraining.local_crops": 1, "pretraining.masked_weight": 1.0, "pretraining.teacher_momentum": 0.9,
        "augmentation.crop": "random_resized",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Leaves pictures blank. The runs of session and module fixtures are made before and have theirs."""
    monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture(scope="session")
def train(digit_folders, quick):
    """Trains for a second on digits: `train(out, {"training.epochs": 3})`; further options are those of `finetune`."""

    def run(out, values=None, **options):
        usual = {"data": digit_folders, "output": out, "recipe": Recipe(), "values": quick(values)}
        return finetune(**usual | options)

    return run


class Listener(QuietReporter):
    """Keeps what a run tells, and breaks it off after some steps."""

    def __init__(self, break_after=None):
        self.messages, self.losses, self.break_after = [], [], break_after

    def message(self, text):
        self.messages.append(text)

    def advance(self, amount=1, **figures):
        if "loss" in figures:
            self.losses.append(figures["loss"])
            if len(self.losses) == self.break_after:
                raise KeyboardInterrupt


@pytest.fixture(scope="session")
def listener():
    return Listener


@pytest.fixture(scope="session")
def losses_of(train, tmp_path_factory):
    """The losses of the first steps of a training."""

    def run(steps, values=None):
        heard = Listener(break_after=steps)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path_factory.mktemp("runs") / "run", values, reporter=heard)
        return heard.losses

    return run


@pytest.fixture(scope="session")
def multi_label_digits():
    """300 digits with any of three labels; a 1 has none of them."""
    names = ["even", "large", "round"]
    features = Features({"image": Image(), "label": List(ClassLabel(names=names))})
    rows = digits_dataset().select(range(300))
    labels = [[n for n, holds in enumerate((d % 2 == 0, d > 4, d in (0, 6, 8, 9))) if holds] for d in rows["label"]]
    return Dataset.from_dict({"image": list(rows["image"]), "label": labels}, features=features)


@pytest.fixture(scope="session")
def multi_label_run(train, multi_label_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "multi"
    return train(out, {"training.epochs": 6, "augmentation.mixup": 0.2}, data=multi_label_digits)


@pytest.fixture(scope="session")
def damaged_squares(detector_data, tmp_path_factory):
    """`detector_data` as a file, with two images that cannot be decoded, which their headers do not tell."""
    images = []
    for number, image in enumerate(detector_data["image"]):
        content = io.BytesIO()
        image.save(content, "jpeg", quality=95)
        images.append({"bytes": content.getvalue()[: -200 if number in (4, 9) else None], "path": f"{number}.jpg"})
    table = detector_data.remove_columns("image").add_column("image", images, feature=Image(decode=False))
    file = tmp_path_factory.mktemp("data") / "squares.parquet"
    table.to_parquet(file)
    return file


@pytest.fixture(scope="session")
def quick_pretraining():
    """Makes the values of a pretraining of a second, by its method: `quick_pretraining("mae", {"seed": 1})`."""

    def make(method="mae", values=None):
        return PRETRAINING | METHODS.get(method, {}) | (values or {})

    return make


@pytest.fixture(scope="session")
def pretrained(digit_folders, quick_pretraining):
    """Pretrains for a second: `pretrained(out, "mae", {"training.epochs": 3})`; the rest are options of `pretrain`."""

    def run(out, method="mae", values=None, **options):
        usual = {"data": digit_folders, "method": method, "values": quick_pretraining(method, values)}
        return vithub.pretrain(output=out, **usual | options)

    return run
