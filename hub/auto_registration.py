"""Registration of our classes with the Auto classes of transformers, as soon as these are imported.

After `import vithub` the Auto classes know our models, whichever of the two packages is imported first. Registration
needs our classes and thereby torch, which takes seconds and would delay `import vithub`, `vithub --help` and the error
for a wrong option. Our classes are therefore registered with each kind of Auto class when transformers has imported the
module of that kind: at the end of the outermost import of transformers, since during it a module that ours need may be
half executed. For the same reason our subpackages import the Auto classes first. Lazy attributes of our package would
not help, because users call the Auto classes of transformers and not ours.
"""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from .import_hooks import after_package_settles

_USES: dict[str, str] = {}
_AUTO = "transformers.models.auto"  # public since transformers 4


def register_when_imported(uses: Mapping[str, str]) -> None:
    """Registers all our classes: now with the Auto classes that are imported, otherwise right after their import.

    Args:
        uses: Module and function, such as "package.module:function", behind each method of our models that rooms above
            this one provide: "predict" and "explain".
    """
    _USES.update(uses)
    after_package_settles("transformers", {
        f"{_AUTO}.configuration_auto": _register_configurations,
        f"{_AUTO}.image_processing_auto": _register_image_processors,
        f"{_AUTO}.modeling_auto": _register_models,
    })  # fmt: skip


def _configurations() -> tuple[Any, Any, Any]:
    """The configuration classes of ViT, DeiT and DETR."""
    return (
        import_module("vithub.configuration.configuration_vit").HubViTConfig,
        import_module("vithub.configuration.configuration_deit").HubDeiTConfig,
        import_module("vithub.configuration.configuration_detr").HubDetrConfig,
    )


def _register_configurations() -> None:
    auto = import_module(f"{_AUTO}.configuration_auto").AutoConfig
    for config_class in _configurations():
        auto.register(config_class.model_type, config_class, exist_ok=True)


def _register_image_processors() -> None:
    auto = import_module(f"{_AUTO}.image_processing_auto").AutoImageProcessor
    transformers: Any = import_module("transformers")
    bit = {"torchvision": transformers.BitImageProcessor, "pil": transformers.BitImageProcessorPil}
    detr = {"torchvision": transformers.DetrImageProcessor, "pil": transformers.DetrImageProcessorPil}
    vit_config, deit_config, detr_config = _configurations()
    for config_class, processors in ((vit_config, bit), (deit_config, bit), (detr_config, detr)):
        auto.register(config_class, image_processor_classes=processors, exist_ok=True)


def _register_models() -> None:
    _connect_hooks()
    auto = import_module(f"{_AUTO}.modeling_auto")
    vit, deit, detr = (import_module(f"vithub.modeling.modeling_{name}") for name in ("vit", "deit", "detr"))
    backbone = import_module("vithub.modeling.vit_backbone").HubViTBackbone
    vit_config, deit_config, detr_config = _configurations()
    for auto_class, config_class, model_class in (
        (auto.AutoModel, vit_config, vit.HubViTModel),
        (auto.AutoModel, deit_config, deit.HubDeiTModel),
        (auto.AutoModel, detr_config, detr.HubDetrModel),
        (auto.AutoModelForImageClassification, vit_config, vit.HubViTForImageClassification),
        (auto.AutoModelForImageClassification, deit_config, deit.HubDeiTForImageClassification),
        (auto.AutoModelForMaskedImageModeling, vit_config, vit.HubViTForMaskedImageModeling),
        (auto.AutoBackbone, vit_config, backbone),
        (auto.AutoBackbone, deit_config, deit.HubDeiTBackbone),
        (auto.AutoModelForObjectDetection, detr_config, detr.HubDetrForObjectDetection),
    ):
        auto_class.register(config_class, model_class, exist_ok=True)


def _connect_hooks() -> None:
    """Makes saved models bring their code, and models answer; what does so is imported at the first use."""
    base = import_module("vithub.modeling.modeling_base").HubPreTrainedModel
    base.save_hook = _write_bundle
    for name, where in _USES.items():
        setattr(base, f"{name}_hook", partial(_use, where))


def _write_bundle(model: Any, folder: Any) -> None:
    import_module("vithub.hub.bundle.code_bundle").write_bundle(model, folder)


def _use(where: str, *arguments: Any, **options: Any) -> Any:
    module, function = where.split(":")
    return getattr(import_module(module), function)(*arguments, **options)


__all__ = ["register_when_imported"]
