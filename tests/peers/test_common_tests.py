"""Table of transformers' common model tests: what each asserts, and which test here asserts it of our models.

`test_models_common.py` runs for every public classifier, encoder and masked image model; detectors have their own.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COMMON = "modeling/test_models_common.py"
OUTPUTS, TRAINER = "peers/test_detr_outputs.py", "peers/test_trainer.py"
FIELDS = "configuration/test_config_fields.py"

# Name there, what it asserts, file and function here.
TABLE = [
    ("test_save_load", "outputs are equal after saving and loading", COMMON,
     "test_saved_and_loaded_models_are_equal_to_the_bit"),
    ("test_from_pretrained_no_checkpoint", "weights survive their state", COMMON,
     "test_saved_and_loaded_models_are_equal_to_the_bit"),
    ("test_can_init_all_missing_weights", "missing weights start as in a new model", COMMON,
     "test_missing_weights_are_initialised_as_in_a_new_model"),
    ("test_init_weights_can_init_buffers", "buffers are filled where a file lacks them", COMMON,
     "test_missing_weights_are_initialised_as_in_a_new_model"),
    ("test_initialization", "initial weights have the range of the configuration", COMMON,
     "test_initial_weights_are_finite_varied_and_scaled"),
    ("test_correct_missing_keys", "a bare model loads from a model with a head", COMMON,
     "test_the_bare_encoder_loads_from_any_folder_and_computes_the_same"),
    ("test_can_use_device_map", "loading through the meta device", COMMON, "test_models_load_through_the_meta_device"),
    ("test_gradient_checkpointing_enable_disable", "checkpointing changes no gradient", COMMON,
     "test_gradient_checkpointing_changes_nothing"),
    ("test_training", "a loss reaches the parameters", COMMON, "test_training_reaches_every_parameter"),
    ("test_attention_outputs", "number, shape and order of attention maps", COMMON,
     "test_hidden_states_and_maps_have_the_right_shapes"),
    ("test_hidden_states_output", "number and shape of hidden states", COMMON,
     "test_hidden_states_and_maps_have_the_right_shapes"),
    ("test_attention_outputs (DETR)", "names, order and values of all outputs", OUTPUTS,
     "test_values_are_those_of_transformers_field_by_field"),
    ("test_model_outputs_equivalence", "a tuple holds what the named output holds", COMMON,
     "test_outputs_can_be_a_tuple"),
    ("test_batching_equivalence", "an image's output does not depend on its batch", COMMON,
     "test_a_batch_is_its_images_one_by_one"),
    ("test_eager_matches_sdpa_inference", "attention implementations agree", COMMON,
     "test_the_kind_of_attention_does_not_change_the_result"),
    ("test_sdpa_can_compile_dynamic", "a model compiles whole", COMMON, "test_models_compile_whole"),
    ("test_torch_export", "a model exports", COMMON, "test_models_export_with_any_batch_size"),
    ("test_tp_plan_matches_params", "each pattern of the plan is a layer", COMMON,
     "test_the_tensor_parallel_plan_lists_every_linear_layer_of_the_encoder_and_nothing_else"),
    ("test_resize_position_vector_embeddings", "another image size resamples the positions", COMMON,
     "test_another_size_is_resampled_once_and_saved"),
    ("test_different_timm_backbone", "channels of the image are the backbone's", FIELDS,
     "test_channels_of_a_detector_are_its_backbones"),
    ("test_problem_types", "labels give a loss, and the trainer finds them", TRAINER,
     "test_the_trainer_finds_the_labels_and_nothing_else"),
    ("ConfigTester.run_common_tests", "a configuration survives its file", FIELDS,
     "test_what_the_constructor_accepts_survives_its_file"),
]  # fmt: skip
# Common tests that ask of a model what none of ours has.
WITHOUT_MEANING = {
    "test_resize_tokens_embeddings": "no vocabulary",
    "test_inputs_embeds": "images are not given as embeddings",
    "test_tied_weights_keys": "no tied weights",
    "test_past_key_values_format": "no cache",
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_each_contract_has_its_test(row):
    _, asserts, file, name = row
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert asserts
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_no_contract_is_listed_as_both():
    assert not {row[0] for row in TABLE} & set(WITHOUT_MEANING)
