"""Table of transformers' common model tests (5.23): what each asserts, and which test here asserts it of which classes.

Names are those of the methods of `ModelTesterMixin` with its export tests, `ConfigTester`, `PipelineTesterMixin`,
`BackboneTesterMixin` and `TrainingTesterMixin`. Image processors are transformers' own classes and tested there.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COMMON, EVERY = "modeling/test_models_common.py", "modeling/test_every_model_class.py"
DETR, DETR_OUTPUTS, TRAINER = "modeling/test_modeling_detr.py", "peers/test_detr_outputs.py", "peers/test_trainer.py"
FIELDS, CONFIG = "configuration/test_config_fields.py", "configuration/test_configuration.py"
# Classes that a test covers: all public ones; ViT and DeiT with or without head; `HubDetrForObjectDetection`, and by it
# `HubDetrModel`, which is all but its heads.
ALL, VITS, DETECTORS, HEADS = "all", "ViT and DeiT", "detectors", "classifiers and detectors"
SAVED = (ALL, EVERY, "test_weights_survive_files_memory_and_their_state")
ATTENTION = (ALL, EVERY, "test_attention_is_chosen_when_made_when_loaded_and_later")
CHECKPOINTING = (ALL, EVERY, "test_activations_computed_anew_change_no_gradient")
DEVICES = (ALL, EVERY, "test_the_default_device_and_the_meta_device_are_kept")
LACKING = (ALL, EVERY, "test_weights_and_buffers_that_a_file_lacks_start_as_in_a_new_model")
ANSWERS = (ALL, EVERY, "test_the_same_pixels_give_the_same_answer_alone_and_in_a_batch_and_as_a_tuple")
INPUT_LAYER = (ALL, EVERY, "test_the_input_layer_can_be_replaced_and_there_is_no_output_layer")
BASES = (ALL, EVERY, "test_a_base_and_a_head_load_from_each_others_folders")
DISK = (ALL, EVERY, "test_a_part_of_the_weights_can_stay_on_the_disk")
LABELS = (HEADS, EVERY, "test_another_number_of_labels_is_refused_or_starts_anew")
SMALL = (ALL, EVERY, "test_models_of_the_tests_are_small")
NAMED = (ALL, EVERY, "test_the_first_argument_and_the_base_are_what_the_class_names")
ADAPTED = (HEADS, "peers/test_adapters_and_backbones.py", "test_adapters_start_as_the_model_learn_alone_and_merge")
FIELD_BY_FIELD = (DETECTORS, DETR_OUTPUTS, "test_values_are_those_of_transformers_field_by_field")
SHAPES = (VITS, COMMON, "test_hidden_states_and_maps_have_the_right_shapes")
LEARNS = [
    (VITS, COMMON, "test_training_reaches_every_parameter"),
    (DETECTORS, DETR, "test_every_trainable_parameter_learns"),
]
KERNELS = [(VITS, COMMON, "test_the_kind_of_attention_does_not_change_the_result"),
           (DETECTORS, DETR, "test_eager_and_fused_attention_agree_and_maps_come_with_both"), ATTENTION]  # fmt: skip
COMPILED = [(VITS, COMMON, "test_models_compile_whole"), (DETECTORS, DETR, "test_it_compiles_as_one_graph")]
FILE = (ALL, FIELDS, "test_what_the_constructor_accepts_survives_its_file")

# Name there: what it asserts, and the tests here.
TABLE = {
    "test_save_load": ("outputs are equal after saving and loading", [SAVED]),
    "test_from_pretrained_no_checkpoint": ("weights survive their state", [SAVED]),
    "test_torch_save_load": ("weights survive torch.save", [SAVED]),
    "test_load_contiguous_weights": ("loaded weights are contiguous", [SAVED]),
    "test_can_use_safetensors": ("safetensors are written and read", [SAVED]),
    "test_can_init_all_missing_weights": ("missing weights start as in a new model", [LACKING]),
    "test_init_weights_can_init_buffers": ("buffers are filled where a file lacks them", [LACKING]),
    "test_all_tensors_are_parameter_or_buffer": ("no tensor is a plain attribute", [
        (ALL, EVERY, "test_every_tensor_is_a_parameter_or_a_buffer")]),
    "test_correct_missing_keys": ("of a base's folder the head alone is missing", [BASES]),
    "test_base_model_prefix_loads_base_weights": ("a base loads from a model with a head", [BASES]),
    "test_model_base_model_prefix": ("the base is where its prefix says", [NAMED]),
    "test_model_main_input_name": ("the first argument is the main input", [NAMED]),
    "test_generation_tester_mixin_inheritance": ("no class claims to generate", [NAMED]),
    "test_can_be_initialized_on_meta": ("models are made without memory", [DEVICES]),
    "test_can_load_with_device_context_manager": ("loading heeds the default device", [DEVICES]),
    "test_can_load_with_global_device_set": ("loading heeds the default device", [DEVICES]),
    "test_cannot_load_with_meta_device_context_manager": ("loading onto meta is refused", [DEVICES]),
    "test_disk_offload_safetensors": ("a part stays on the disk", [DISK]),
    "test_gradient_checkpointing_enable_disable": ("it can be set and taken back", [CHECKPOINTING]),
    "test_gradient_checkpointing_backward_compatibility": ("it can be set and taken back", [CHECKPOINTING]),
    "test_training_gradient_checkpointing": ("it changes no gradient", [CHECKPOINTING]),
    "test_training_gradient_checkpointing_use_reentrant_false": ("it changes no gradient", [CHECKPOINTING]),
    "test_training_gradient_checkpointing_use_reentrant_true": ("it changes no gradient", [CHECKPOINTING]),
    "test_peft_gradient_checkpointing_enable_disable": ("it goes with adapters", [ADAPTED]),
    "test_enable_input_require_grads": ("inputs can be made to need gradients", [INPUT_LAYER]),
    "test_enable_input_require_grads_with_gradient_checkpointing": ("both go together", [ADAPTED]),
    "test_training": ("a loss reaches the parameters", LEARNS),
    "test_determinism": ("the same answer twice", [ANSWERS]),
    "test_batching_equivalence": ("an image's output does not depend on its batch", [ANSWERS]),
    "test_model_outputs_equivalence": ("a tuple holds what the named output holds", [ANSWERS]),
    "test_attention_outputs": ("number, shape and order of attention maps", [SHAPES, FIELD_BY_FIELD]),
    "test_hidden_states_output": ("number and shape of hidden states", [SHAPES, FIELD_BY_FIELD]),
    "test_retain_grad_hidden_states_attentions": ("states and maps keep gradients", [
        (ALL, EVERY, "test_gradients_of_hidden_states_and_maps_can_be_kept")]),
    "test_model_get_set_embeddings": ("the input layer can be replaced", [INPUT_LAYER]),
    "test_resize_position_vector_embeddings": ("another image size resamples the positions", [
        (VITS, COMMON, "test_another_size_is_resampled_once_and_saved")]),
    "test_problem_types": ("labels give the loss of their kind", [
        (VITS, "modeling/test_classification_loss.py", "test_every_kind_of_problem_has_the_loss_of_transformers"),
        (DETECTORS, DETR_OUTPUTS, "test_the_loss_of_labels_is_that_of_transformers"),
        (ALL, TRAINER, "test_the_trainer_finds_the_labels_and_nothing_else")]),
    "test_load_with_mismatched_shapes": ("other shapes are refused or start anew", [LABELS]),
    "test_can_load_ignoring_mismatched_shapes": ("other shapes are refused or start anew", [LABELS]),
    "test_num_layers_is_small": ("tests are cheap", [SMALL]),
    "test_model_is_small": ("tests are cheap", [SMALL]),
    "test_eager_matches_sdpa_inference": ("attention implementations agree", KERNELS),
    "test_attn_implementation_composite_models": ("the choice reaches every part", [ATTENTION]),
    "test_sdpa_can_dispatch_composite_models": ("the choice reaches every part", [ATTENTION]),
    "test_sdpa_can_dispatch_non_composite_models": ("sdpa is what is asked for", [ATTENTION]),
    "test_config_attn_implementation_setter": ("the choice reaches every part", [ATTENTION]),
    "test_can_set_attention_dynamically": ("attention is chosen later", [ATTENTION]),
    "test_can_set_attention_dynamically_composite_model": ("attention is chosen later", [ATTENTION]),
    "test_internal_model_config_and_subconfig_are_same": ("parts share their configuration", [
        (ALL, EVERY, "test_parts_share_the_configuration_of_the_whole")]),
    "test_model_forward_default_config_values": ("a file of differences is enough", [
        (ALL, EVERY, "test_what_differs_from_the_defaults_makes_the_same_model")]),
    "test_bc_torch_dtype": ("the old name of the type is taken", [
        (ALL, EVERY, "test_the_old_name_of_the_type_of_weights_is_taken")]),
    "test_sdpa_can_compile_dynamic": ("a model compiles whole", COMPILED),
    "test_torch_compile_for_training": ("a compiled model trains the same", [
        (VITS, "training/loop/test_compiled_training.py", "test_a_compiled_run_is_the_uncompiled_one"),
        (DETECTORS, "training/loop/test_compiled_training.py", "test_a_compiled_detector_is_the_uncompiled_one")]),
    "test_torch_export": ("a model exports", [
        (VITS, COMMON, "test_models_export_with_any_batch_size"),
        (DETECTORS, EVERY, "test_detectors_export_and_compute_the_same")]),
    "test_tp_plan_matches_params": ("each pattern of the plan is a layer; detectors have no plan", [
        (VITS, COMMON, "test_the_tensor_parallel_plan_lists_every_linear_layer_of_the_encoder_and_nothing_else")]),
    "create_and_test_config_common_properties": ("fields bear the common names", [
        (VITS, CONFIG, "test_any_configuration_survives_its_file"),
        (DETECTORS, "configuration/test_configuration_detr.py", "test_defaults_are_the_published_recipe")]),
    "create_and_test_config_to_json_string": ("fields survive JSON", [FILE]),
    "create_and_test_config_to_json_file": ("fields survive a file", [FILE]),
    "create_and_test_config_from_and_save_pretrained": ("fields survive a folder", [FILE]),
    "create_and_test_config_from_and_save_pretrained_subfolder": ("fields survive a folder", [FILE]),
    "create_and_test_config_from_and_save_pretrained_composite": ("a part's fields survive the whole's file", [
        (DETECTORS, "configuration/test_configuration_detr.py",
         "test_round_trip_keeps_every_field_and_the_kind_of_backbone")]),
    "create_and_test_config_with_num_labels": ("labels follow their number", [LABELS]),
    "check_config_can_be_init_without_params": ("defaults are a configuration", [
        (ALL, FIELDS, "test_a_resembling_field_is_refused_from_a_person_and_warned_of_in_a_file")]),
    "check_config_arguments_init": ("common arguments are kept", [FILE]),
    "test_pipeline_image_classification": ("the pipeline classifies", [
        (VITS, "training/test_run_loading.py", "test_predict_gives_the_scores_of_the_pipeline")]),
    "test_pipeline_object_detection": ("the pipeline detects", [
        (DETECTORS, DETR, "test_saved_it_loads_by_the_auto_classes_and_detects_in_a_pipeline")]),
    "test_pipeline_image_classification_fp16": ("half precision is close", [
        (VITS, COMMON, "test_half_precision_is_close")]),
    "test_pipeline_object_detection_fp16": ("half precision is close", [
        (DETECTORS, DETR, "test_bf16_stays_close_and_boxes_are_single")]),
}  # fmt: skip

TEXT, EXPERTS, ROTARY = "no vocabulary and no text", "no experts", "no rotary positions"
FEATURES = "no method that takes one modality of several"
# Common tests that ask of a model what none of ours has.
WITHOUT_MEANING = {
    "test_resize_tokens_embeddings": TEXT,
    "test_resize_tokens_embeddings_with_deepspeed": TEXT,
    "test_resize_tokens_embeddings_with_deepspeed_multi_gpu": TEXT,
    "test_resize_embeddings_untied": TEXT,
    "test_resize_embeddings_untied_with_deepspeed": TEXT,
    "test_resize_embeddings_untied_with_deepspeed_multi_gpu": TEXT,
    "test_resize_embeddings_untied_no_reinit_on_post_init": TEXT,
    "test_encoder_decoder_loss_no_double_shift": TEXT,
    "test_causal_lm_loss_honors_shift_labels": TEXT,
    "test_inputs_embeds": "images are not given as embeddings",
    "test_inputs_embeds_matches_input_ids": "images are not given as embeddings",
    "test_tied_weights_keys": "no tied weights",
    "test_load_save_without_tied_weights": "no tied weights",
    "test_model_weights_reload_no_missing_tied_weights": "no tied weights",
    "test_tied_head_has_a_tp_plan_entry": "no tied weights",
    "test_keep_in_fp32_modules": "no module is kept in single precision by its name",
    "test_keep_in_fp32_modules_exist": "no module is kept in single precision by its name",
    "test_save_load_keys_to_ignore_on_save": "every tensor is saved",
    "test_feed_forward_chunking": "feed-forward layers are not cut into chunks",
    "test_sliding_window_mask": "attention is over the whole image",
    "test_reverse_loading_mapping": "no tensor is renamed by transformers when it is loaded",
    "test_can_load_from_already_mapped_keys": "no tensor is renamed by transformers when it is loaded",
    "test_capture_outputs_decorator": "outputs are collected by the models, not by that decorator",
    "test_format_of_can_record_outputs": "outputs are collected by the models, not by that decorator",
    "test_can_capture_specific_layers_hidden_states": "outputs are collected by the models, not by that decorator",
    "test_disk_offload_bin": "pickles are neither written nor read",
    "test_eager_matches_batched_and_grouped_inference": EXPERTS,
    "test_moe_models_record_router_logits": EXPERTS,
    "test_output_router_logits_from_config": EXPERTS,
    "test_model_rope_scaling_from_config": ROTARY,
    "test_model_rope_scaling_frequencies": ROTARY,
    "test_vision_axial_rope": ROTARY,
    "test_model_rope_with_partial_rotation": ROTARY,
    "create_and_test_config_from_pretrained_custom_kwargs": "no part is chosen by a key of a larger configuration",
    "test_training_overfit": "of language models alone, as it says itself; runs that learn are tests/training",
    "test_pipeline_image_feature_extraction": "of Auto classes with features for search; see `vithub.layer_features`",
    "test_pipeline_image_feature_extraction_fp16": "of Auto classes with features for search",
    **{f"test_get_{kind}_features_{what}": FEATURES
       for kind in ("text", "image", "audio", "video")
       for what in ("output", "pooler_output", "hidden_states", "attentions")
       if what != "pooler_output" or kind in ("image", "video")},
    **dict.fromkeys(
        ("test_config", "test_forward_signature", "test_config_save_pretrained", "test_channels",
         "test_create_from_modified_config", "test_backbone_common_attributes", "test_backbone_outputs",
         "test_backbone_stage_selection"),
        "no class of ours is a backbone of `AutoBackbone`; see test_adapters_and_backbones.py"),
}  # fmt: skip
GPU, RUNTIME = "needs a GPU and a kernel for it", "needs a runtime that the tests do not install"
# Common tests with a meaning for our models that cannot run where the tests run.
NOT_RUN_HERE = {
    "test_cpu_offload": "needs an accelerator; the disk is tested instead",
    "test_model_parallelism": "needs two GPUs",
    "test_flex_attention_with_grads": "flex attention has no backward pass on a CPU",
    "test_sdpa_can_dispatch_on_flash": GPU,
    "test_kernels_can_load_without_crashing": "downloads kernels",
    "test_flash_attn_kernels_inference_equivalence": GPU,
    "test_flash_attn_kernels_mps_inference_equivalence": GPU,
    "test_flash_attn_2_fp32_ln": GPU,
    "test_flash_attn_2_can_compile_with_attention_mask_None_without_graph_break": GPU,
    **{f"test_flash_attn_{version}_{what}": GPU
       for version in (2, 3, 4)
       for what in ("inference_equivalence", "inference_equivalence_right_padding", "can_dispatch_composite_models",
                    "from_config")},
    "test_onnx_export": RUNTIME,
    "test_openvino_export": RUNTIME,
    "test_executorch_export": RUNTIME,
}  # fmt: skip


@cache
def functions_of(file):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("contract", TABLE)
def test_each_contract_has_its_tests_for_every_class_that_it_is_of(contract):
    asserts, tests = TABLE[contract]
    assert asserts
    covered = {classes for classes, _, _ in tests}
    assert covered
    whole = ALL in covered or HEADS in covered or {VITS, DETECTORS} <= covered
    of_some = {"test_resize_position_vector_embeddings", "test_tp_plan_matches_params",
               "create_and_test_config_from_and_save_pretrained_composite"}  # fmt: skip
    assert whole or contract in of_some or contract.startswith("test_pipeline_")
    for _, file, name in tests:
        assert name in functions_of(file), file


def test_every_common_test_is_listed_once_with_a_reason_where_it_is_left_out():
    lists = [set(TABLE), set(WITHOUT_MEANING), set(NOT_RUN_HERE)]
    assert sum(len(names) for names in lists) == len(set.union(*lists))
    assert all(WITHOUT_MEANING.values())
    assert all(NOT_RUN_HERE.values())
