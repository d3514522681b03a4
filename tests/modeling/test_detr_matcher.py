"""The matcher against a slow and obvious one, and against transformers'."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from transformers.loss.loss_for_object_detection import HungarianMatcher
from vithub.modeling.detr_matcher import NonFiniteCostError, match_queries, matching_costs
from vithub.modeling.detr_targets import pad_targets

import vithub

SIZES = {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4}


def slow_cost(logits, boxes, label, box, config):
    """The cost of one query (its logits and box) for one target, written out in floats of double precision."""
    if config.focal_loss:
        p = torch.sigmoid(logits[label]).item()
        a, g = config.focal_alpha, config.focal_gamma
        class_cost = a * (1 - p) ** g * -torch.tensor(p + 1e-8).double().log().item()
        class_cost -= (1 - a) * p**g * -torch.tensor(1 - p + 1e-8).double().log().item()
    else:
        class_cost = -(logits.double() - logits.double().logsumexp(0)).exp()[label].item()
    x, y, w, h = boxes.double().tolist()
    u, v, k, m = box.double().tolist()
    apart = abs(x - u) + abs(y - v) + abs(w - k) + abs(h - m)
    left, right = max(x - w / 2, u - k / 2), min(x + w / 2, u + k / 2)
    top, bottom = max(y - h / 2, v - m / 2), min(y + h / 2, v + m / 2)
    shared = max(right - left, 0) * max(bottom - top, 0)
    union = w * h + k * m - shared
    hull_w = max(x + w / 2, u + k / 2) - min(x - w / 2, u - k / 2)
    hull_h = max(y + h / 2, v + m / 2) - min(y - h / 2, v - m / 2)
    overlap = shared / union - (hull_w * hull_h - union) / (hull_w * hull_h)
    return config.bbox_cost * apart + config.class_cost * class_cost - config.giou_cost * overlap


@st.composite
def batches(draw):
    """Layers, queries and targets on a coarse grid, so that ties are common; fewer, as many or more boxes."""
    queries = draw(st.integers(1, 5))
    counts = draw(st.lists(st.integers(0, queries + 1), min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    layers, images = draw(st.integers(1, 2)), len(counts)

    def coarse(*shape):
        return torch.randint(1, 5, shape, generator=generator) / 4

    logits = torch.randint(-2, 3, (layers, images, queries, 4), generator=generator).float()
    labels = [{"class_labels": torch.randint(0, 3, (n,), generator=generator), "boxes": coarse(n, 4)} for n in counts]
    return logits, coarse(layers, images, queries, 4), labels


@pytest.mark.parametrize("focal", [False, True])
@given(batch=batches())
def test_costs_and_assignments_are_those_of_the_slow_version(focal, batch):
    logits, boxes, labels = batch
    config = vithub.HubDetrConfig(**SIZES, num_labels=3, focal_loss=focal)
    if focal:
        logits = logits[..., :3]
    targets = pad_targets(labels, logits.device)
    costs = matching_costs(logits, boxes, targets, config)
    matches = match_queries(logits, boxes, targets, config)
    for layer in range(len(logits)):
        for image, target in enumerate(labels):
            wanted = [
                [slow_cost(logits[layer, image, q], boxes[layer, image, q], int(c), b, config)
                 for c, b in zip(target["class_labels"], target["boxes"], strict=True)]
                for q in range(logits.shape[2])
            ]  # fmt: skip
            here = (matches.layer == layer) & (matches.image == image)
            pairs = list(zip(matches.query[here].tolist(), matches.target[here].tolist(), strict=True))
            if not len(target["boxes"]):
                assert not pairs
                continue
            wanted = torch.tensor(wanted, dtype=torch.float64)
            got = costs[layer, image, :, : wanted.shape[1]].double()
            assert torch.allclose(got, wanted, atol=1e-6, rtol=0)
            rows, columns = linear_sum_assignment(got)
            assert pairs == list(zip(rows.tolist(), columns.tolist(), strict=True))
            best = wanted[linear_sum_assignment(wanted)].sum()
            assert abs(wanted[tuple(zip(*pairs, strict=True))].sum() - best) < 1e-5
            assert len(pairs) == min(wanted.shape)


@given(batch=batches())
def test_assignments_are_transformers(batch):
    logits, boxes, labels = batch
    config = vithub.HubDetrConfig(**SIZES, num_labels=3)
    generator = torch.Generator().manual_seed(len(labels))
    logits = logits + torch.rand(logits.shape, generator=generator)  # without ties
    boxes = boxes * (0.9 + 0.1 * torch.rand(boxes.shape, generator=generator))
    matches = match_queries(logits, boxes, pad_targets(labels, logits.device), config)
    theirs = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    for layer in range(len(logits)):
        expected = theirs({"logits": logits[layer], "pred_boxes": boxes[layer]}, labels)
        for image, (query, target) in enumerate(expected):
            here = (matches.layer == layer) & (matches.image == image)
            assert matches.query[here].tolist() == query.tolist()
            assert matches.target[here].tolist() == target.tolist()


@pytest.mark.parametrize("boxes_of", [2, 0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_no_numbers_name_layer_and_images(value, boxes_of):
    config = vithub.HubDetrConfig(**SIZES, num_labels=3)
    logits, boxes = torch.zeros(3, 3, 5, 4), torch.full((3, 3, 5, 4), 0.5)
    boxes[1, 2, 4, 0] = value
    labels = [
        {"class_labels": torch.zeros(n, dtype=torch.int64), "boxes": torch.full((n, 4), 0.5), "image_id": name}
        for n, name in ((1, "a.jpg"), (0, 17), (boxes_of, torch.tensor([39])))
    ]
    with pytest.raises(NonFiniteCostError, match=r"decoder layer 1 .* for the images \[?39\]?$"):
        match_queries(logits, boxes, pad_targets(labels, logits.device), config)
