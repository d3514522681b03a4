"""The loss of DETR: its formula, what it refuses, and that it does not depend on how a batch is cut."""

import os

import pytest
import torch
from processes import free_port
from torch import multiprocessing
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss
from vithub.modeling.detr_denoising import noised_queries
from vithub.modeling.detr_loss import detection_loss, loss_counts
from vithub.modeling.detr_targets import read_targets

import vithub

OPTIONS = {
    "plain": {},
    "anchors": {"anchor_queries": True, "denoising_queries": 8, "focal_loss": True},
    "denoised cross-entropy": {"anchor_queries": True, "denoising_queries": 8},
}


def loss_of(logits, boxes, labels, config, counts=None):
    """`detection_loss` of labels as they come from a data set."""
    return detection_loss(logits, boxes, read_targets(labels, logits.shape[1], config, logits.device), config, counts)


def noised_of(labels, config):
    """`noised_queries` of labels as they come from a data set."""
    return noised_queries(read_targets(labels, len(labels), config, torch.device("cpu")), config)


def targets(*counts, seed=0):
    """One dict per image with that many boxes, all of them well inside."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "class_labels": torch.randint(0, 3, (n,), generator=generator),
            "boxes": torch.rand(n, 4, generator=generator) * 0.2 + 0.3,
        }
        for n in counts
    ]


def predictions(layers, images, queries, classes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, queries, classes, generator=generator)
    return logits, torch.rand(layers, images, queries, 4, generator=generator) * 0.4 + 0.2


def test_every_term_of_every_layer_is_transformers(tiny_detr):
    config = tiny_detr()
    logits, boxes = predictions(2, 2, 10, 4)
    labels = targets(3, 1)
    loss, terms = loss_of(logits, boxes, labels, config)
    expected, wanted, _ = ForObjectDetectionLoss(logits[-1], labels, logits.device, boxes[-1], config, logits, boxes)
    for name, term in terms.items():
        assert torch.allclose(term, wanted[name], atol=1e-6), name
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    total = sum(weights[name.removesuffix("_0")] * term for name, term in terms.items())
    assert torch.allclose(loss, total, atol=1e-5)
    assert torch.allclose(loss, expected, atol=1e-5)
    assert len(terms) == 6


def test_the_focal_loss_is_torchvisions(tiny_detr):
    from torchvision.ops import sigmoid_focal_loss
    from vithub.modeling.detr_loss import class_loss

    logits, _ = predictions(2, 2, 10, 3)
    classes = torch.randint(0, 4, (2, 2, 10), generator=torch.Generator().manual_seed(5))  # 3 is "no object"
    got = class_loss(logits, classes, tiny_detr(focal_loss=True), 4.0, 20.0, 5.0)
    one_hot = torch.eye(4)[classes][..., :3]
    expected = sigmoid_focal_loss(logits, one_hot, reduction="none").sum((1, 2, 3)) / 5
    assert torch.allclose(got, expected, atol=1e-6)


def test_images_without_boxes_have_a_loss_and_a_gradient(tiny_detr):
    logits, boxes = predictions(2, 2, 10, 4)
    logits.requires_grad_()
    loss, terms = loss_of(logits, boxes, targets(0, 0), tiny_detr())
    loss.backward()
    assert terms["loss_bbox"] == terms["loss_giou"] == 0
    assert terms["loss_ce"] > 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("option", OPTIONS)
def test_pieces_with_the_mean_of_their_counts_make_the_loss_of_the_whole(tiny_detr, option):
    config = tiny_detr(**OPTIONS[option])
    logits, boxes = predictions(2, 4, 10, config.num_class_logits)
    labels = targets(5, 0, 1, 12)  # 12 boxes for 10 queries
    whole, _ = loss_of(logits, boxes, labels, config)
    parts = [slice(0, 1), slice(1, 4)]
    counts = sum(loss_counts(labels[part], config) for part in parts) / len(parts)
    pieces = [loss_of(logits[:, part], boxes[:, part], labels[part], config, counts)[0] for part in parts]
    assert torch.allclose(sum(pieces) / len(pieces), whole, atol=1e-6)
    assert not torch.allclose(pieces[0], pieces[1])


def _losses(config, labels, part):
    """Loss and a gradient of a model that is the same everywhere, for a part of two images that are so too."""
    torch.manual_seed(0)
    model = vithub.HubDetrForObjectDetection(config).train()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    loss = model(pixels[part], labels=labels[part]).loss
    loss.backward()
    model.eval()
    if part.start == 0:  # not every process has something to evaluate: this must not wait for the others
        model(pixels[part], labels=labels[part])
    return {"loss": loss.detach(), "gradient": model.class_labels_classifier.weight.grad}


def _worker(rank, port, folder, config, batches):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results = [_losses(config, labels, slice(rank, rank + 1)) for labels in batches]
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_loss_of_one(tiny_detr, tmp_path):
    """Fault 1: with the same data everywhere the box terms doubled. Other data on each: the mean is the whole."""
    config = tiny_detr(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    batches = [targets(4, 4), targets(5, 1)]
    arguments = (free_port(), str(tmp_path), config, batches)
    multiprocessing.start_processes(_worker, arguments, nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for labels, one, other in zip(batches, first, second, strict=True):
        whole = _losses(config, labels, slice(0, 2))
        for name, expected in whole.items():
            assert torch.allclose((one[name] + other[name]) / 2, expected, atol=1e-6, rtol=1e-6), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_labels": torch.tensor([0, 3])}, r"image cat.jpg, box 1: `class_labels` must lie in 0..2, got 3"),
        ({"class_labels": torch.tensor([-1, 0])}, r"image cat.jpg, box 0: `class_labels` must lie in 0..2, got -1"),
        ({"class_labels": torch.tensor([0.0, 1.0])}, r"image cat.jpg: `class_labels` must be \(n,\) whole numbers"),
        ({"class_labels": torch.tensor([0])}, r"image cat.jpg: `boxes` must be \(1, 4\) floats"),
        (
            {"boxes": torch.tensor([[0.5, 0.5, 0.1, 0.1], [50.0, 60.0, 20.0, 20.0]])},
            r"box 1: `boxes` must be .* got \[50",
        ),
        ({"boxes": torch.tensor([[0.5, 0.5, 0.0, 0.1]] * 2)}, r"box 0: .* with an area, got"),
        ({"boxes": torch.tensor([[0.5, 0.5, float("nan"), 0.1]] * 2)}, r"image cat.jpg, box 0: .*nan"),
        ({"boxes": torch.tensor([[0.6, 0.6, 0.9, 0.9]] * 2)}, r"image cat.jpg, box 0"),  # corners taken for centers
        ({"boxes": torch.zeros(2, 4, dtype=torch.int64)}, r"`boxes` must be \(2, 4\) floats"),
    ],
)
def test_wrong_targets_are_named(tiny_detr, change, message):
    """Faults 4 and 5: labels that mean "no object", boxes in pixels, boxes that are no numbers."""
    good = {"class_labels": torch.tensor([0, 1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 2)}
    logits, boxes = predictions(1, 2, 10, 4)
    with pytest.raises(ValueError, match=message):
        loss_of(logits, boxes, [good, {**good, "image_id": "cat.jpg", **change}], tiny_detr())


def test_missing_targets_are_named(tiny_detr):
    logits, boxes = predictions(1, 2, 10, 4)
    with pytest.raises(ValueError, match="one entry for each of the 2 images, got 1"):
        loss_of(logits, boxes, targets(1), tiny_detr())
    with pytest.raises(ValueError, match=r"image 1: .* got no boxes"):
        loss_of(logits, boxes, [targets(1)[0], {"class_labels": torch.tensor([1])}], tiny_detr())


def test_noise_that_images_bring_along_is_theirs_however_they_are_batched(tiny_detr):
    config = tiny_detr(anchor_queries=True, denoising_queries=8)
    labels = [{**target, "noise": torch.rand(8, 6)} for target in targets(3, 0, 9)]
    whole = noised_of(labels, config)
    for place in range(3):
        alone = noised_of(labels[place : place + 1], config)
        assert torch.equal(alone.boxes[0], whole.boxes[place])
        assert torch.equal(alone.classes[0], whole.classes[place])
    still = [{**target, "noise": torch.full((8, 6), 0.5)} for target in labels]  # no label flips, no side moves
    start = noised_of(still, config).boxes[0, :3]
    torch.testing.assert_close(start, labels[0]["boxes"].float(), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match=r"`noise` must be \(8, 6\) .* got \[\(8, 6\)\] for 1 of them"):
        noised_of([labels[0], targets(1)[0]], config)
    with pytest.raises(ValueError, match=r"got \[\(4, 6\)\]"):
        noised_of([{**labels[0], "noise": torch.rand(4, 6)}], config)


def test_each_image_fills_its_slots_with_whole_copies(tiny_detr):
    config = tiny_detr(anchor_queries=True, denoising_queries=8, denoising_label_noise=0.0)
    labels = targets(3, 0, 9)
    noised = noised_of(labels, config)
    assert noised.used.sum(1).tolist() == [6, 0, 8]
    assert loss_counts(labels, config)[3] == 14
    assert noised.target[0].tolist()[:6] == [0, 1, 2, 0, 1, 2]
    assert noised.target[2].tolist() == list(range(8))
    assert torch.equal(noised.classes[0, :6], labels[0]["class_labels"].repeat(2))
    allowed = noised.allowed[0, 0]
    assert allowed[:3, :3].all()
    assert not allowed[:3, 3:8].any()  # another copy
    assert allowed[:8, 8:].all()
    assert not allowed[8:, :8].any()  # the queries must not see the answers
    assert allowed[8:, 8:].all()
    start, end = noised.boxes[0, :3], labels[0]["boxes"]
    assert ((start[:, 2:] / end[:, 2:] - 1).abs() <= 0.4 + 1e-6).all()
    assert ((start[:, :2] - end[:, :2]).abs() <= 0.2 * end[:, 2:] + 1e-6).all()
    assert not torch.equal(noised.boxes[0, :3], noised.boxes[0, 3:6])


def test_too_many_boxes_are_told_once_for_a_model_with_numbers_as_numbers(tiny_detr, caplog):
    config = tiny_detr(num_queries=2)
    labels = targets(1, 5, 4)
    labels[1]["image_id"], labels[2]["image_id"] = torch.tensor([18]), torch.tensor([19])
    logits, boxes = predictions(2, 3, 2, 4)
    for _ in range(3):
        loss_of(logits, boxes, labels, config)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "image 18 has 5 boxes and the model 2 queries: some boxes are never matched, here and in other such images, "
        "which are not named"
    ]
    loss_of(logits, boxes, labels[::-1], tiny_detr(num_queries=2))  # another model
    assert caplog.records[-1].getMessage().startswith("image 19 has 4 boxes and the model 2 queries")
    assert len(caplog.records) == 2
    labels[1]["boxes"] = labels[1]["boxes"][:1]
    with pytest.raises(ValueError, match=r"^image 18: `boxes` must be \(5, 4\)"):
        loss_of(logits, boxes, labels, config)
