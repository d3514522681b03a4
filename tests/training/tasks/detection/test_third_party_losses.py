"""Losses of transformers' detectors: as transformers computes them, and the same into whatever a batch is divided."""

import inspect
import json
from pathlib import Path

import processes
import pytest
import torch
import transformers
from tiny_detectors import FIELDS, SIDE, tiny_detector
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES
from vithub.training.tasks.detection.third_party_losses import TransformersLoss, computes_loss, loss_of, one_group

# Model types of transformers that cannot be trained, and why not.
NO_LOSS = {
    "pp_doclayout_v2": "raises an error where labels are given",
    "pp_doclayout_v3": "raises an error where labels are given",
    "pp_doclayout_v4": "raises an error where labels are given",
    "pp_ocrv5_mobile_det": "takes no labels",
    "pp_ocrv5_server_det": "takes no labels",
    "pp_ocrv6_medium_det": "takes no labels",
    "pp_ocrv6_small_det": "takes no labels",
}


def batch_of(sizes):
    """Images with as many boxes as `sizes` says, as `collate_boxes` gives them."""
    draws = torch.Generator().manual_seed(1)
    labels = [
        {
            "class_labels": torch.randint(2, (size,), generator=draws),
            "boxes": 0.3 + 0.3 * torch.rand(size, 4, generator=draws),
            "size": torch.tensor([SIDE, SIDE]),
            "image_id": str(number),
        }
        for number, size in enumerate(sizes)
    ]
    mask = torch.ones(len(sizes), SIDE, SIDE, dtype=torch.int64)
    pixels = torch.randn(len(sizes), 3, SIDE, SIDE, generator=draws)
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": labels}


def piece_of(batch, places):
    return {
        name: [value[n] for n in places] if isinstance(value, list) else value[places] for name, value in batch.items()
    }


def without_draws(model_type):
    """A model whose loss draws nothing, and matches each layer by itself."""
    fields = {"deimv2": {"use_dense_one_to_one": False}}.get(model_type, {})
    return tiny_detector(model_type, **fields)


def corrected(criterion, model, batches):
    """Loss of each of several pieces of a batch."""
    for batch in batches:
        batch["labels"] = criterion.targets(batch, ())
    shares = criterion.shares([batch["labels"] for batch in batches], torch.device("cpu"))
    with torch.no_grad():
        pairs = zip(batches, shares, strict=True)
        return [criterion(model, {**batch, "loss_counts": share})[0] for batch, share in pairs]


def test_every_model_type_of_transformers_trains_or_has_a_reason_why_not():
    assert set(MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES) == set(FIELDS) | set(NO_LOSS)


@pytest.mark.parametrize("model_type", NO_LOSS)
def test_models_without_a_loss_are_known_by_their_class(model_type):
    kind = getattr(transformers, MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES[model_type])
    takes_labels = "labels" in inspect.signature(kind.forward).parameters
    assert takes_labels == (NO_LOSS[model_type] != "takes no labels")
    if not takes_labels:
        return  # test_a_model_without_a_loss_is_refused opens one of these
    with torch.device("meta"):
        model = kind(transformers.AutoConfig.for_model(model_type))
    assert not computes_loss(model)
    assert loss_of(model) is None


@pytest.mark.parametrize("model_type", FIELDS)
def test_the_loss_is_that_of_transformers(model_type):
    model = tiny_detector(model_type).train()
    batch = batch_of([2, 1])
    plain = [{name: target[name] for name in ("class_labels", "boxes")} for target in batch["labels"]]
    torch.manual_seed(5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(batch["pixel_values"], labels=plain)
    model.load_state_dict(state)
    criterion = loss_of(model)
    assert type(criterion) is TransformersLoss
    batch["labels"] = criterion.targets(batch, ())
    (share,) = criterion.shares([batch["labels"]], torch.device("cpu"))
    torch.manual_seed(5)
    with torch.no_grad():
        loss, terms = criterion(model, {**batch, "loss_counts": share})
    assert torch.allclose(loss, expected.loss, rtol=1e-6, atol=0)
    for name, term in terms.items():
        assert torch.allclose(term, expected.loss_dict[name], rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("model_type", FIELDS)
def test_pieces_of_a_batch_have_the_loss_of_the_whole(model_type):
    """In evaluation, where images do not see each other: denoising and batch statistics are of a piece."""
    model = without_draws(model_type)
    batch = batch_of([3, 0, 1, 0, 2, 1])
    criterion = loss_of(model)
    with one_group(model.config):
        (whole,) = corrected(criterion, model, [piece_of(batch, list(range(6)))])
        pieces = corrected(criterion, model, [piece_of(batch, places) for places in ([0, 2], [1, 3], [4, 5])])
    assert torch.allclose(torch.stack(pieces).mean(), whole, rtol=1e-5)


WORKER = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
import torch
torch.set_num_threads(1)
import transformers
transformers.utils.logging.set_verbosity_error()
from vithub.training.runtime.processes import process_state
from test_third_party_losses import FIELDS, batch_of, corrected, loss_of, one_group, piece_of, without_draws
rank = process_state().process_index
found = {}
for model_type in FIELDS:
    model = without_draws(model_type)
    batch = batch_of([3, 0, 1, 2])
    criterion = loss_of(model)
    with one_group(model.config):
        found[model_type] = [float(loss) for loss in corrected(
            criterion, model, [piece_of(batch, [place]) for place in ([0, 1] if rank == 0 else [2, 3])]
        )]
print("RESULT " + json.dumps(found), flush=True)
"""


def test_two_processes_have_the_loss_of_one():
    here = Path(__file__).parent
    done = processes.launch(WORKER, [json.dumps([str(here), str(here.parents[2])])])
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT "))
    for model_type in FIELDS:
        model = without_draws(model_type)
        with one_group(model.config):
            (whole,) = corrected(loss_of(model), model, [batch_of([3, 0, 1, 2])])
        parts = first[model_type] + second[model_type]
        assert sum(parts) / 4 == pytest.approx(float(whole), rel=1e-5), model_type


def test_boxes_are_relative_to_the_picture_where_the_model_sees_no_mask():
    batch = batch_of([1])
    batch["labels"][0]["size"] = torch.tensor([SIDE, SIDE // 2])  # the right half is padding
    own = batch["labels"][0]["boxes"]
    (seen,) = loss_of(tiny_detector("yolos")).targets(batch, ())
    assert torch.equal(seen["boxes"], own * torch.tensor([0.5, 1.0, 0.5, 1.0]))
    (seen,) = loss_of(tiny_detector("deformable_detr")).targets(batch, ())
    assert torch.equal(seen["boxes"], own)


@pytest.mark.parametrize("model_type", FIELDS)
def test_a_model_sees_the_mask_as_is_taken_for_granted(model_type):
    model = tiny_detector(model_type)
    if not loss_of(model).masked:
        return
    pixels, mask = torch.randn(1, 3, 2 * SIDE, 2 * SIDE), torch.ones(1, 2 * SIDE, 2 * SIDE, dtype=torch.int64)
    mask[:, :, SIDE:] = 0
    with torch.no_grad():
        assert not torch.allclose(model(pixels, mask).logits, model(pixels).logits, atol=1e-6)


def test_wrong_targets_are_named():
    criterion, batch = loss_of(tiny_detector("d_fine")), batch_of([2, 1])
    batch["labels"][1]["class_labels"] = torch.tensor([2])
    with pytest.raises(ValueError, match=r"image 1, box 0: `class_labels` must lie in 0\.\.1, got 2"):
        criterion.targets(batch, ())
    batch = batch_of([2, 1])
    batch["labels"][0]["boxes"] = batch["labels"][0]["boxes"] * SIDE
    with pytest.raises(ValueError, match=r"image 0, box 0: `boxes` must be .* relative to the image"):
        criterion.targets(batch, ())
