"""Facts of a pretrained backbone for its model card, read from its `config.json` and `metrics.json`."""

from pathlib import Path
from typing import Any

from ...configuration.configuration_deit import HubDeiTConfig
from ...data.text.markdown_text import Markdown
from .facts import about_model, left_out
from .header import public_name
from .kinds import TEMPLATES, CardKind, register_card_kind

PRETRAINING = "pretraining"
# Description of each method, and its citation.
_METHODS = {
    "mae": (
        "hidden patches were reconstructed from the visible ones (MAE)",
        "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022. https://arxiv.org/abs/2111.06377",
    ),
    "simmim": (
        "hidden patches were reconstructed by a linear layer (SimMIM)",
        "Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022. https://arxiv.org/abs/2111.09886",
    ),
    "dino": (
        "a student agreed with its own moving average, which is published, on different parts of each image (DINO)",
        "Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021. "
        "https://arxiv.org/abs/2104.14294",
    ),
    "features": (
        "those of another model were learned through a linear map",
        "Ranzinger et al., AM-RADIO: Agglomerative Vision Foundation Model, CVPR 2024. https://arxiv.org/abs/2312.06709",
    ),
}
_IBOT = "Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, ICLR 2022. https://arxiv.org/abs/2111.07832"
_RANK = (
    "Garrido et al., RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by "
    "Their Rank, ICML 2023. https://arxiv.org/abs/2210.02885"
)


def _facts(
    folder: Path,
    config: dict[str, Any],
    metrics: dict[str, Any],
    labels: list[str],  # noqa: ARG001
    native: str | None,
) -> dict[str, Any]:
    split, about = metrics["reported_split"], metrics["pretraining"]
    how, citation = _METHODS[about["method"]]
    known = about_model(config, metrics, native)
    masks = about["method"] == "dino" and about["mask_ratio"] is not None
    kind = "DeiT" if config["model_type"] == HubDeiTConfig.model_type else "ViT"
    return {
        **known,
        "title": f"{kind} pretrained on {metrics['data']['name']}",
        "citations": [*known["citations"], citation, *([_IBOT] if masks else []), _RANK],
        "how": Markdown(how),
        "hidden": about["mask_ratio"],
        "taught_by": public_name(about["teacher"]) if about.get("teacher") else None,
        "probe": public_name(about["probe"]) if about.get("probe") else None,
        "probe_images": (metrics.get("probe") or {}).get("images"),
        "collapsed": bool(metrics.get("collapsed")),
        "split": split,
        "figures": metrics[split],
        "images": metrics["data"]["sizes"][split] - left_out(metrics).get(split, 0),
        "bad_images": left_out(metrics),
        "pictures": {"learning_curves.png"}
        if metrics["history"] or (folder / "learning_curves.png").is_file()
        else set(),
    }


# no metrics are reported to the Hub: neither loss nor rank compares one model with another
register_card_kind(PRETRAINING, CardKind("image-feature-extraction", TEMPLATES / "pretrained_backbone.md", (), _facts))

__all__ = ["PRETRAINING"]
