"""Denoising training (DN-DETR, Li et al. 2022, https://arxiv.org/abs/2203.01305) with queries that start near targets.

Shapes: B images, S slots (denoising queries), Q queries, D width, L layers.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..configuration.configuration_detr import HubDetrConfig
from .box_geometry import center_to_corners, corners_to_center
from .detr_loss import as_divisors, box_losses, class_loss, denoised_boxes, weigh
from .detr_matcher import Matches
from .detr_targets import PaddedTargets


@dataclass
class NoisedQueries:
    """Denoising queries: noised copies of the targets.

    Args:
        classes: Initial class of each slot, (B, S) int64.
        boxes: Initial box of each slot, (B, S, 4); (0.5, 0.5, 0.5, 0.5) in unused slots.
        target: Index of the image's target box that each slot should reconstruct, (B, S).
        used: Whether each slot holds a copy of a target, (B, S) bool.
        places: Image and slot of each used slot, (2, U) int64, row by row.
        allowed: Attention mask, (B, 1, S + Q, S + Q) bool, True where attention is allowed: each copy of the targets
            attends to itself and to the Q queries, which do not attend to the copies.
        targets: Targets that were copied.
    """

    classes: torch.Tensor
    boxes: torch.Tensor
    target: torch.Tensor
    used: torch.Tensor
    places: torch.Tensor
    allowed: torch.Tensor
    targets: PaddedTargets


@torch.no_grad()
def noised_queries(targets: PaddedTargets, config: HubDetrConfig) -> NoisedQueries:
    """Makes as many whole copies of each image's boxes as fit into S slots, each with its own noise.

    The number of slots is fixed and each image fills its own, so that neither shapes nor noise depend on the other
    images of the batch. In an image with more than S boxes the first S are copied once.

    Args:
        targets: Targets of the batch; noise is drawn where they have none.
        config: Configuration of the model.
    """
    device, queries = targets.labels.device, config.denoising_queries
    # Which slot copies which box follows from the numbers of boxes alone, which the host knows.
    whole = [denoised_boxes(count, config) for count in targets.counts]
    slots, count = torch.arange(queries)[None], torch.tensor(targets.counts)[:, None].clamp(min=1)  # (1, S), (B, 1)
    taken = slots < torch.tensor(whole)[:, None]  # (B, S)
    index = torch.where(taken, slots % count, 0)
    copy = torch.where(taken, slots // count, -1 - slots)  # an unused slot is a group of its own
    pairs = [(image, slot) for image, number in enumerate(whole) for slot in range(number)]
    places = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    used, target, copy, places = (tensor.to(device, non_blocking=True) for tensor in (taken, index, copy, places))

    classes = targets.labels.gather(1, target)
    draws = targets.noise
    if draws is None:
        draws = torch.rand(len(targets.counts), queries, 6, device=device)
    flipped = draws[..., 0] < config.denoising_label_noise
    classes = torch.where(flipped, (draws[..., 1] * config.num_labels).long(), classes)
    boxes = targets.boxes.gather(1, target[..., None].expand(-1, -1, 4))
    signed = (2 * draws[..., 2:] - 1) * config.denoising_box_noise  # (B, S, 4) in [-noise, noise]
    center = boxes[..., :2] + signed[..., :2] * boxes[..., 2:] / 2
    size = boxes[..., 2:] * (1 + signed[..., 2:])
    corners = center_to_corners(torch.cat([center, size], dim=-1)).clamp(0, 1)
    boxes = corners_to_center(corners).masked_fill(~used[..., None], 0.5)

    group = torch.cat([copy, copy.new_full((len(copy), config.num_queries), -1 - queries)], dim=1)
    is_query = group == -1 - queries
    allowed = (group[:, :, None] == group[:, None, :]) | is_query[:, None, :]
    return NoisedQueries(classes, boxes, target, used, places, allowed[:, None], targets)


class HubDetrDenoisingEmbedding(nn.Module):
    """Initial content of the denoising queries: an embedding of their class."""

    def __init__(self, config: HubDetrConfig) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(config.num_labels, config.d_model)

    def forward(self, classes: torch.Tensor) -> torch.Tensor:
        """Maps classes (B, S) to (B, S, D)."""
        return self.label_embedding(classes)


def denoising_loss(
    logits: torch.Tensor, boxes: torch.Tensor, noised: NoisedQueries, config: HubDetrConfig, counts: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of the denoising queries, whose targets are known without matching.

    Args:
        logits: Logits of all layers, (L, B, S, classes).
        boxes: Predicted boxes of all layers, (L, B, S, 4).
        noised: Denoising queries that the predictions started from.
        config: Configuration with the weights of the terms.
        counts: Divisors as `loss_counts` returns them, (4,).

    Returns:
        The loss, and its terms as `detection_loss` returns them, with "_dn" after their names.
    """
    layers = logits.shape[0]
    number = as_divisors(counts, logits.device)[3].clamp(min=1)
    image, slot = noised.places
    target = noised.target[image, slot]
    layer = torch.arange(layers, device=logits.device)[:, None].expand(-1, len(image)).reshape(-1)
    matches = Matches(layer, image.repeat(layers), slot.repeat(layers), target.repeat(layers))
    chosen = logits[:, image, slot][:, None]  # (L, 1, used, classes)
    classes = noised.targets.labels[image, target].expand(layers, 1, -1)
    terms = {"loss_ce": class_loss(chosen, classes, config, number, number, number)}
    terms["loss_bbox"], terms["loss_giou"] = box_losses(boxes, noised.targets, matches, number)
    return weigh(terms, config, "_dn")


__all__ = ["HubDetrDenoisingEmbedding", "NoisedQueries", "denoising_loss", "noised_queries"]
