"""DETR with a ResNet-50: our training step beside transformers' with the same weights, synthetic images."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from check import Check, Record, exact_products, in_turns, largest_relative, measured, speeds
from check import verdict as judged
from phase_models import RESNET, TINY_DETR
from torch import nn

SAME_LOSS = 1e-3  # relative, in fp32


def _models(check: Check) -> tuple[nn.Module, nn.Module]:
    """Ours and transformers', with the same random weights."""
    from transformers import DetrForObjectDetection

    import vithub

    torch.manual_seed(0)
    still = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    fields: dict[str, Any] = {"num_labels": 91, "frozen_stages": 0, "auxiliary_loss": False, **still}
    if check.tiny:
        fields |= {**TINY_DETR, "backbone_config": RESNET, "num_labels": 5, "num_queries": 8}
    ours = vithub.HubDetrForObjectDetection(vithub.HubDetrConfig(**fields))
    source, target = check.folder / "detr", check.folder / "detr-transformers"
    ours.save_pretrained(source)
    vithub.convert(source, target, to="transformers")
    theirs = DetrForObjectDetection.from_pretrained(target).requires_grad_(True)  # it freezes other parts than ours
    return ours.to(check.device), theirs.to(check.device)


def _inputs(check: Check, count: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    height, width = (64, 96) if check.tiny else (640, 800)
    pixels = torch.randn(count, 3, height, width, generator=generator).to(check.device)
    labels = [
        {
            "class_labels": torch.randint(5, (7,), generator=generator).to(check.device),
            "boxes": (torch.rand(7, 4, generator=generator) * 0.2 + 0.3).to(check.device),
        }
        for _ in range(count)
    ]
    return {"pixel_values": pixels, "labels": labels}


def _step(model: nn.Module, inputs: dict[str, Any], check: Check) -> Callable[[], float]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    kind = check.device.split(":")[0]
    model.train()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()
        return float(loss.detach())  # a loop reads its loss, so both wait for the card once a step

    return step


def same_loss_and_speed(check: Check) -> Iterator[Record]:
    """Loss of both in fp32, which must agree, then images per second of the training step in bf16.

    With auxiliary losses transformers' last layer computes something else, so the losses are compared without them, and
    the steps are timed with them.
    """
    ours, theirs = _models(check)
    inputs = _inputs(check, 2)
    exact_products()
    with torch.no_grad():
        losses = [model.eval()(**inputs).loss.item() for model in (ours, theirs)]
    difference = largest_relative(losses[:1], losses[1:])
    yield judged(difference <= SAME_LOSS, losses=losses, differ=difference, tolerance=SAME_LOSS)
    count = 2 if check.tiny else 8
    inputs = _inputs(check, count)
    trainable = {name: _trainable(model) for name, model in (("vithub", ours), ("transformers", theirs))}
    ours.config.auxiliary_loss = theirs.config.auxiliary_loss = True
    torch.backends.cudnn.allow_tf32 = True  # torch's default again, for both
    arms = {"vithub": _step(ours, inputs, check), "transformers": _step(theirs, inputs, check)}
    found = in_turns(arms, check, rounds=5, seconds=1.0)
    yield measured(images=count, **speeds(found, count, "vithub"), trained_parameters=trainable)


def _trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def the_matcher(check: Check) -> Record:
    """Milliseconds of our matcher and transformers' on the same predictions of six layers."""
    from transformers.loss.loss_for_object_detection import HungarianMatcher
    from vithub.configuration.configuration_detr import HubDetrConfig
    from vithub.modeling.detr_matcher import match_queries
    from vithub.modeling.detr_targets import pad_targets

    layers, images, queries = (2, 2, 10) if check.tiny else (6, 16, 100)
    generator = torch.Generator().manual_seed(0)
    config = HubDetrConfig(num_labels=5)
    logits = torch.randn(layers, images, queries, config.num_class_logits, generator=generator).to(check.device)
    boxes = (torch.rand(layers, images, queries, 4, generator=generator) * 0.4 + 0.25).to(check.device)
    labels = _inputs(Check(check.device, True, check.folder), images)["labels"]
    theirs = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    arms: dict[str, Callable[[], object]] = {
        "vithub": lambda: match_queries(logits, boxes, pad_targets(labels, logits.device), config),
        "transformers": lambda: [
            theirs({"logits": logits[layer], "pred_boxes": boxes[layer]}, labels) for layer in range(layers)
        ],
    }
    found = in_turns(arms, check, rounds=5, seconds=0.3)
    return measured(layers=layers, images=images, queries=queries, **speeds(found, images, "vithub"))


STEPS = (same_loss_and_speed, the_matcher)
