"""Low-rank adapters (https://arxiv.org/abs/2106.09685) through peft: few trained values, merged into the weights."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from transformers import PreTrainedModel

from ...modeling.modeling_vit import HubViTPreTrainedModel
from ..recipe.recipe import RecipeError
from ..recipe.sections import LoraSettings
from .parameter_groups import is_head

# Query and value projections, which the paper adapts (section 7.1), by model type.
TARGETS = {
    "vit": ["query", "value", "q_proj", "v_proj"],
    "deit": ["query", "value", "q_proj", "v_proj"],
    "dinov2": ["query", "value", "q_proj", "v_proj"],
    "swin": ["query", "value"],
    "convnext": ["pwconv1", "pwconv2"],
    "convnextv2": ["pwconv1", "pwconv2"],
}
ADAPTER = "adapter"


class Adapters:
    """Inserts adapters into a model in place and freezes everything except adapters and heads.

    Args:
        model: Model of this package or of transformers.
        settings: LoRA settings with a rank above 0.

    Raises:
        RecipeError: peft is missing, or the layers to adapt are unknown or not in the model.
    """

    def __init__(self, model: PreTrainedModel, settings: LoraSettings) -> None:
        if find_spec("peft") is None:
            raise RecipeError("lora.rank: needs peft; pip install 'vithub[lora]'")
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        targets = settings.targets or default_targets(model)
        names = [name for name, _ in model.named_modules()]
        if not any(name.split(".")[-1] in targets or name in targets for name in names):
            layers = dict.fromkeys(
                name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
            )
            raise RecipeError(
                f"lora.targets: {type(model).__name__} has no layers named {', '.join(targets)}; its linear layers are "
                f"{', '.join(layers)}"
            )
        self.heads = sorted({name.rpartition(".")[0] for name, _ in model.named_parameters() if is_head(name)})
        self.config: Any = LoraConfig(
            r=settings.rank or 0, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=list(targets)
        )
        self.model = LoraModel(model, self.config, "default")
        for name, parameter in model.named_parameters():
            if is_head(name):
                parameter.requires_grad_(True)

    def merge(self) -> None:
        """Adds the adapters to the weights that they adapt, which restores the model's structure."""
        self.model.merge_and_unload()

    def save(self, folder: Path, source: str) -> None:
        """Writes `adapter_model.safetensors` and `adapter_config.json`, which `PeftModel.from_pretrained` loads.

        Args:
            folder: Folder to make.
            source: Name of the model that the adapters were trained on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = self.model.model.state_dict()
        kept: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            if ".lora_A." in name or ".lora_B." in name:
                kept[f"base_model.model.{name.replace('.default', '')}"] = tensor
            elif is_head(name):
                kept[f"base_model.model.{name}"] = tensor
        safetensors.torch.save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()},
            folder / "adapter_model.safetensors",
            {"format": "pt"},
        )
        content: dict[str, Any] = self.config.to_dict()
        content |= {"base_model_name_or_path": source, "modules_to_save": self.heads, "inference_mode": True}
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in content.items()}
        (folder / "adapter_config.json").write_text(json.dumps(plain, indent=1, default=str) + "\n", encoding="utf-8")


def default_targets(model: nn.Module) -> list[str]:
    """Returns the names of the layers to adapt in a model of a known family.

    Raises:
        RecipeError: The family is not known.
    """
    if isinstance(model, HubViTPreTrainedModel):
        return ["q_proj", "v_proj"]
    family = getattr(getattr(model, "config", None), "model_type", None)
    if family not in TARGETS:
        raise RecipeError(
            f"lora.targets: must list the layers of {type(model).__name__} to adapt, such as [q_proj, v_proj]; known "
            f"are those of {', '.join(TARGETS)}"
        )
    return TARGETS[family]


__all__ = ["ADAPTER", "Adapters", "default_targets"]
