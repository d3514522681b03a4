from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from vithub.modeling import modeling_vit

FILES = sorted((Path(__file__).parents[3] / "docs/accelerate").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_accelerate_reads_the_documented_configurations(file):
    config = load_config_from_file(str(file))
    assert config.num_processes == 8 * config.num_machines
    assert config.distributed_type.value in ("MULTI_GPU", "FSDP")
    assert config.mixed_precision == "no"  # the recipe's field decides


def test_the_layers_that_are_sharded_exist():
    (file,) = [file for file in FILES if file.name == "fsdp2.yaml"]
    fsdp = load_config_from_file(str(file)).fsdp_config
    assert fsdp["fsdp_version"] == 2
    name = fsdp["fsdp_transformer_layer_cls_to_wrap"]
    assert issubclass(getattr(modeling_vit, name), modeling_vit.nn.Module)
    assert name in modeling_vit.HubViTForImageClassification._no_split_modules
