"""Self-distillation: DINO (https://arxiv.org/abs/2104.14294), with iBOT's masked term (https://arxiv.org/abs/2111.07832).

A student learns, from each view of an image, what its own moving average says of the other large view.
Shapes: B images, V views, C channels, N patches of a large view, D = hidden size, K = number of prototypes.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Self

import torch
from torch import nn

from ....data.seeding import derived_seed
from ....modeling.modeling_vit import HubViTModel
from ...recipe.pretraining_settings import PretrainingSettings
from .learners import Learner, image_tokens, initialize
from .masking import draw_mask, hidden_count
from .views import LARGE_VIEWS, ViewSizes


class PrototypeHead(nn.Module):
    """MLP, and the cosine similarity of its result to each of K prototypes: (..., D) to (..., K), in [-1, 1].

    Args:
        width: Width D of what it is given.
        settings: Pretraining settings of the recipe, with the widths and the number of prototypes.
    """

    def __init__(self, width: int, settings: PretrainingSettings) -> None:
        super().__init__()
        inner, last = settings.projection_width, settings.bottleneck_width
        self.mlp = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, last)
        )
        initialize(self.mlp)
        self.prototypes = nn.Parameter(nn.init.trunc_normal_(torch.empty(settings.prototypes, last), std=0.02))
        self.frozen = False  # whether the prototypes stay as they are in this step

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Maps (..., D) to (..., K)."""
        prototypes: torch.Tensor = self.prototypes
        if self.frozen:  # with a gradient of 0, for which distributed training does not wait in vain
            prototypes = prototypes.detach() + 0 * prototypes
        found = nn.functional.normalize(self.mlp(states), dim=-1)
        return nn.functional.linear(found, nn.functional.normalize(prototypes, dim=-1))


class Centre(nn.Module):
    """Moving mean of the teacher's answers, which is subtracted so that no prototype wins everywhere (DINO, eq. 4).

    The mean moves between steps, by the answers of a whole step in all processes and all parts of its batch. Their sum
    is kept until then, and saved in checkpoints.

    Args:
        count: Number K of prototypes.
        momentum: Part of the mean that stays in a step, in [0, 1).
    """

    mean: torch.Tensor
    total: torch.Tensor
    seen: torch.Tensor

    def __init__(self, count: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("total", torch.zeros(count))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def add(self, answers: torch.Tensor) -> None:
        """Adds the answers (..., K) of this process, and those of all others, to the sum of the step."""
        own = torch.cat(
            [answers.float().flatten(0, -2).sum(dim=0), answers.new_tensor([answers[..., 0].numel()]).float()]
        )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(own)
        self.total += own[:-1]
        self.seen += own[-1]

    @torch.no_grad()
    def move(self) -> None:
        """Moves the mean by the sum of the last step, if there was one, and begins the next sum."""
        weight = (1 - self.momentum) * (self.seen > 0)
        self.mean.lerp_(self.total / self.seen.clamp(min=1), weight)
        self.total.zero_()
        self.seen.zero_()


class SelfDistillation(Learner):
    """Student, and a teacher that is the moving average of the student; the teacher is published.

    Args:
        vit: Backbone to train; with a mask token if patches are masked.
        settings: Pretraining settings of the recipe.

    Raises:
        RecipeError: A setting does not suit the backbone or the size of the images.
    """

    def __init__(self, vit: HubViTModel, settings: PretrainingSettings) -> None:
        super().__init__(vit)
        self.settings, self.sizes = settings, ViewSizes.of(vit.config, settings)
        self.masks = settings.masked_weight > 0
        if self.masks:
            hidden_count(settings, vit.config.grid_size)
        self.head = PrototypeHead(vit.config.hidden_size, settings)
        self.teacher = deepcopy(vit).eval().requires_grad_(False)
        self.teacher_head = deepcopy(self.head).eval().requires_grad_(False)
        self.centre = Centre(settings.prototypes, settings.centre_momentum)
        self.patch_centre = Centre(settings.prototypes, settings.centre_momentum) if self.masks else None

    @property
    def judged(self) -> HubViTModel:
        """The teacher: it has better features than the student (DINO, section 5.2)."""
        return self.teacher

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the student; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        self.teacher_head.eval()
        return self

    def begin_step(self, step: int, epoch: int, steps: int) -> None:
        """Moves teacher and centres by what the last step left, with a momentum that grows to 1 along a cosine."""
        self.head.frozen = epoch < self.settings.frozen_prototypes
        if step == 0:
            return
        start = self.settings.teacher_momentum
        momentum = 1 - (1 - start) * (1 + math.cos(math.pi * step / steps)) / 2
        with torch.no_grad():
            for own, other in ((self.teacher, self.vit), (self.teacher_head, self.head)):
                for average, value in zip(own.parameters(), other.parameters(), strict=True):
                    average.lerp_(value, 1 - momentum)
        self.centre.move()
        if self.patch_centre is not None:
            self.patch_centre.move()

    def draws(self, seeds: Sequence[int], image_hw: tuple[int, int]) -> dict[str, torch.Tensor]:
        """`mask` (B, 2, N) bool, True on the patches of large views that are hidden from the student, if any are."""
        if not self.masks:
            return {}
        grid = image_hw[0] // self.vit.config.patch_hw[0], image_hw[1] // self.vit.config.patch_hw[1]
        hidden = hidden_count(self.settings, grid)
        masks = [draw_mask([derived_seed(seed, view) for seed in seeds], grid, hidden) for view in range(LARGE_VIEWS)]
        return {"mask": torch.stack(masks, dim=1)}

    def forward(self, *, pixel_values: torch.Tensor, mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """Computes the loss of each image, (B,) fp32.

        Args:
            pixel_values: Views as rows (B, F), see `ViewSizes.cut`; or images (B, C, height, width), each of which is
                compared with its mirror image.
            mask: Hidden patches of the large views (B, 2, N), True where hidden; None hides none.
            **kwargs: Arguments of the student's backbone, such as `batch_window`.
        """
        if pixel_values.ndim == 4:
            larges, smalls = torch.stack([pixel_values, pixel_values.flip(-1)], dim=1), None
        else:
            larges, smalls = self.sizes.cut(pixel_values)
        with torch.no_grad():
            known = [self._answers(self.teacher, self.teacher_head, view) for view in larges.unbind(1)]
            targets = [self._targets(self.centre, image) for image, _ in known]
            if self.training:
                self.centre.add(torch.stack([image for image, _ in known]))
        found = []
        for number, view in enumerate(larges.unbind(1)):
            own: dict[str, Any] = {} if mask is None else {"bool_masked_pos": mask[:, number]}
            found.append(self._answers(self.vit, self.head, view, **own, **kwargs))
        said = [image for image, _ in found]
        for view in () if smalls is None else smalls.unbind(1):
            answer, _ = self._answers(self.vit, self.head, view, patches=False, **kwargs)
            said.append(answer)
        pairs = [
            self._cross_entropy(target, answer)
            for first, target in enumerate(targets)
            for second, answer in enumerate(said)
            if first != second
        ]
        loss = torch.stack(pairs).mean(dim=0)
        if mask is None or self.patch_centre is None:
            return loss
        with torch.no_grad():
            patch_targets = [self._targets(self.patch_centre, patches) for _, patches in known]
            if self.training:
                self.patch_centre.add(torch.stack([patches for _, patches in known]))
        terms = []
        for number, (_, patches) in enumerate(found):
            hidden = mask[:, number].float()
            each = self._cross_entropy(patch_targets[number], patches)  # (B, N)
            terms.append((each * hidden).sum(dim=1) / hidden.sum(dim=1))
        return loss + self.settings.masked_weight * torch.stack(terms).mean(dim=0)

    def _answers(
        self, vit: HubViTModel, head: PrototypeHead, view: torch.Tensor, patches: bool = True, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Similarities to the prototypes of a view's CLS token (B, K), and of its patches (B, N, K) where needed."""
        image, own = image_tokens(vit, vit(view, **kwargs).last_hidden_state)
        similar = head(image).float()
        return similar, (head(own).float() if patches and self.masks else similar)

    def _targets(self, centre: Centre, answers: torch.Tensor) -> torch.Tensor:
        return ((answers - centre.mean) / self.settings.teacher_temperature).softmax(dim=-1)

    def _cross_entropy(self, targets: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (...) of a student's similarities (..., K) with a teacher's probabilities."""
        return -(targets * (answers / self.settings.student_temperature).log_softmax(dim=-1)).sum(dim=-1)


__all__ = ["Centre", "PrototypeHead", "SelfDistillation"]
