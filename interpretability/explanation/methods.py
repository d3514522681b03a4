"""Registry of the explanation methods, with advice on when to use each and when not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..capture.subject import Subject
from .attention_flow import gradient_rollout, raw_attention, rollout
from .class_activation import grad_cam, hires_cam, layer_cam
from .input_methods import integrated_gradients, occlusion, random_map
from .relevance import relevance
from .request import Found, Request


@dataclass(frozen=True)
class ExplanationMethod:
    """Explanation method and its description.

    Args:
        name: Name of the method in `explain`.
        title: Name of the method for display.
        scale: Meaning of a value of the map, for legends.
        when: Advice on when to use the method, in one line.
        when_not: Advice on when not to use it, in one line.
        options: Arguments of `explain` that the method takes besides `target` and `query`.
        needs_attention: Whether the method works only for models with attention.
        uses_class: Whether the map depends on the explained class.
        compute: Function that computes the map.
    """

    name: str
    title: str
    scale: str
    when: str
    when_not: str
    options: frozenset[str]
    needs_attention: bool
    uses_class: bool
    compute: Callable[[Subject, Request], Found]

    @property
    def text(self) -> str:
        """Advice in two lines: when to use the method and when not."""
        return f"Use it {self.when}\nNot {self.when_not}"


_ALL = (
    ExplanationMethod(
        "attention", "Raw attention", "attention weight",
        "to see what one head of one layer looks at, from CLS, the distillation token or any patch.",
        "as the reason for a class: it is one step of many, and the same for every class.",
        frozenset({"layer", "head", "token"}), True, False, raw_attention,
    ),
    ExplanationMethod(
        "rollout", "Attention rollout", "share of the attention that reaches the classifier",
        "for a quick view of which patches can have reached the classifier through all layers, without gradients.",
        "to tell classes apart, or in deep models, where it turns into an even blur.",
        frozenset({"token"}), True, False, rollout,
    ),
    ExplanationMethod(
        "gradient_rollout", "Gradient rollout", "share of the attention that raises the class's score",
        "as rollout for one class: attention counts as far as it raises that class's score.",
        "where the score is saturated: gradients near zero leave noise, scaled up row by row.",
        frozenset({"token"}), True, True, gradient_rollout,
    ),
    ExplanationMethod(
        "relevance", "Attention relevance", "relevance for the class (positive gradient times attention)",
        "as the first choice for a ViT and, per object query, for DETR: gradient times attention through all layers.",
        "at very large images: the weights of every layer are held for the gradient, N x N for each head.",
        frozenset({"token"}), True, True, relevance,
    ),
    ExplanationMethod(
        "grad_cam", "Grad-CAM", "features weighted by the class's mean gradient",
        "as the usual, cheap map of one class on a CNN; one forward and one backward pass.",
        "for exact places, least of all on a ViT: it averages gradients over the map, and may mark what was not used.",
        frozenset({"layer"}), False, True, grad_cam,
    ),
    ExplanationMethod(
        "hires_cam", "HiRes-CAM", "features times the class's gradient",
        "in the place of Grad-CAM where places must be right: it is exact where a linear layer follows the features.",
        "on early layers, where gradients change from position to position and the map turns to noise.",
        frozenset({"layer"}), False, True, hires_cam,
    ),
    ExplanationMethod(
        "layer_cam", "LayerCAM", "features times the class's positive gradient",
        "on earlier layers, for finer maps than Grad-CAM gives: each position has its own weight.",
        "to weigh evidence against the class: only positive gradients count.",
        frozenset({"layer"}), False, True, layer_cam,
    ),
    ExplanationMethod(
        "integrated_gradients", "Integrated gradients", "part of the class's score (logit)",
        "for values that add up: over all pixels they sum to the score less that of a grey image.",
        "for a clean picture: it is noisy from pixel to pixel, and blind to what has the mean colour.",
        frozenset({"steps"}), False, True, integrated_gradients,
    ),
    ExplanationMethod(
        "occlusion", "Occlusion", "fall of the class's score (logit) when greyed",
        "to check the others: it measures how far the score falls when a patch is greyed, for any model.",
        "in a hurry, or where evidence is redundant: one pass per patch, and each patch alone may change nothing.",
        frozenset({"batch_size"}), False, True, occlusion,
    ),
    ExplanationMethod(
        "random", "Random map", "random number",
        "as the baseline: a method that does not beat it in a measure of faithfulness explains nothing.",
        "as an explanation.",
        frozenset({"seed"}), False, False, random_map,
    ),
)  # fmt: skip

EXPLANATION_METHODS: Mapping[str, ExplanationMethod] = MappingProxyType({method.name: method for method in _ALL})

__all__ = ["EXPLANATION_METHODS", "ExplanationMethod"]
