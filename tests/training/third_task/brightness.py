"""A throw-away task: the brightness of an image, as one number in [0, 1]. It lives in this folder alone."""

from pathlib import Path
from types import SimpleNamespace

import torch
from rich.table import Table
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForImageClassification
from vithub.configuration.configuration_vit import HubViTConfig
from vithub.data.image_processing import build_image_processor
from vithub.data.labelled.dataset import EvaluationTransform, collate
from vithub.data.row_images import RowImages
from vithub.hub.card.kinds import CardKind, register_card_kind
from vithub.modeling.modeling_vit import HubViTForImageClassification
from vithub.training.recipe.run_data import reported_split
from vithub.training.tasks.mirroring import refuse_mirrored
from vithub.training.tasks.registry import register_task
from vithub.training.tasks.task import TrainingTask
from vithub.training.tasks.train_batches import TableBatches, table_order

TABLES = {}  # data sets by name


class Photos(RowImages):
    def content(self, image, row, index):
        return image, row.get("brightness", 0.0)

    empty_content = content

    def sample(self, content):
        return {"pixel_values": self.transform(content[0]), "labels": torch.tensor(content[1])}


class Distances:
    headline = "closeness"

    def __init__(self):
        self.sums = torch.zeros(3, dtype=torch.float64)  # images, distances, squares

    def update(self, answers, truth):
        far = (answers - truth).double()
        self.sums += torch.tensor([len(far), far.abs().sum(), far.square().sum()], dtype=torch.float64)

    def compute(self):
        count, distance, square = self.sums.tolist()
        return {"closeness": 1 - distance / count, "loss": square / count}

    def tensors(self):
        return [self.sums.clone()]

    def load(self, tensors):
        self.sums = tensors[0].clone()

    def merge(self, accelerator):
        self.sums = accelerator.reduce(self.sums)

    def measurements(self, names):
        return {"mean_distance": 1 - self.compute()["closeness"]}

    def save_plots(self, names, folder):
        pass


class Evaluator:
    largest_batch = None

    def __init__(self, model, photos):
        self.model, self.photos, self.name = model, photos, photos.name

    def __len__(self):
        return len(self.photos)

    def new_metrics(self, process, processes):
        return Distances()

    def parts(self, batch_size, process, processes):
        rows = list(range(process, len(self), processes))
        return [(rows[n : n + batch_size], len(rows[n : n + batch_size])) for n in range(0, len(rows), batch_size)]

    def loader(self, parts, workers):
        return DataLoader(self.photos, batch_sampler=[rows for rows, _ in parts], collate_fn=collate)

    def add(self, metrics, batch, part):
        metrics.update(self.model(pixel_values=batch["pixel_values"]).logits[:, 0].cpu(), batch["labels"])
        return []

    def loss(self, metrics, bad):
        return None

    def describe(self, row):
        return self.photos.describe(row)


class BrightnessTask(TrainingTask):
    problem, names = "image_regression", ["brightness"]

    def __init__(self, recipe, model, processor, data, processes):
        super().__init__(recipe, model, processor, data)
        order = table_order(recipe, data.splits["train"], processes)
        self.batches = TableBatches(recipe, lambda: self.photos("train"), order, 0, collate)

    def input_facts(self):
        return {"image_hw": [16, 16]}

    def photos(self, split):
        return Photos(self.data.splits[split], EvaluationTransform(self.image_processor), self.recipe.seed, split)

    def evaluator(self, model, split, autocast=None):
        return Evaluator(model, self.photos(split))

    def loss(self, model, batch):
        return model(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss


class Brightness:
    name = "brightness"
    takes_tiles = False

    def default_preset(self, model):
        return "from-scratch-small"

    def build(self, recipe, source, processes, teacher):
        torch.manual_seed(recipe.seed)
        config = HubViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                              image_size=16, patch_size=8, num_labels=1, problem_type="regression")  # fmt: skip
        splits = TABLES[source]
        data = SimpleNamespace(name=source, splits=splits, sizes={n: len(t) for n, t in splits.items()}, notes=[],
                               reported="test")  # fmt: skip
        processor = build_image_processor((16, 16))
        return BrightnessTask(recipe, HubViTForImageClassification(config), processor, data, processes)

    def open_evaluation(self, path, name, data, split, label_column, skip_bad, backend=None):
        model, transform = _saved(path)
        split = split or reported_split(path)
        photos = Photos(TABLES[data][split], transform, name=split)
        return SimpleNamespace(
            data=data, split=split, rows=photos.table, evaluator=lambda device: Evaluator(model, photos),
            results=lambda evaluation: {"metrics": evaluation.values}, save_plots=lambda *_: None,
        )  # fmt: skip

    def skipping(self, own_data):
        return "measures without such photos"

    def result_table(self, result):
        return Table(title=f"closeness {result['metrics']['closeness']:.3f}")

    def open_mirrored(self, path, backend):
        refuse_mirrored(self.name)

    def open_images(self, path, *, top, batch_size, threshold, output, backend=None):
        model, transform = _saved(path)
        answer = lambda image: {"brightness": model(transform(image)[None]).logits.item()}  # noqa: E731
        return SimpleNamespace(
            predictions=lambda opened: ({"image": name, "predictions": [answer(image)]} for name, image in opened)
        )


def _saved(path: Path):
    processor = AutoImageProcessor.from_pretrained(path)
    return AutoModelForImageClassification.from_pretrained(path), EvaluationTransform(processor)


def _facts(folder, config, metrics, labels, native):
    split = metrics["reported_split"]
    return {"title": "Brightness", "split": split, "distance": f"{metrics['mean_distance']:.3f}", "citations": [],
            "pictures": set(), "code": "bundle"}  # fmt: skip


register_task(Brightness(), lambda name, config: config.get("problem_type") == "regression", {"boxes.*": None})
reported = (("closeness", "closeness", None),)
register_card_kind(
    "image_regression", CardKind("image-classification", Path(__file__).with_name("card.md"), reported, _facts)
)
