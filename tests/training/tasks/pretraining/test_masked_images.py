"""The losses of masked image modelling are those of transformers, and MAE computes the visible patches alone."""

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from vithub.training.recipe.pretraining_settings import PretrainingSettings
from vithub.training.recipe.recipe import Recipe, RecipeError
from vithub.training.tasks.pretraining.building import build_learner
from vithub.training.tasks.pretraining.masked_images import MAE, SimMIM
from vithub.training.tasks.pretraining.masking import draw_mask, draw_noise
from vithub.training.tasks.pretraining.model_source import build_backbone
from vithub.training.tasks.pretraining.visible_patches import encode_visible

import vithub

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DECODER = {"decoder_width": 16, "decoder_layers": 2, "decoder_heads": 2}
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def in_our_order(weight):
    """Rows that are a patch's pixels, ordered (row, column, channel) there and (channel, row, column) here."""
    return weight.unflatten(0, (8, 8, 3)).movedim(2, 0).flatten(0, 2)


@pytest.mark.parametrize("normalize", [True, False])
def test_mae_has_the_loss_and_the_gradients_of_transformers(normalize, randomised):
    config = transformers.ViTMAEConfig(
        **SIZE, image_size=32, patch_size=8, layer_norm_eps=1e-6, norm_pix_loss=normalize, decoder_hidden_size=16,
        decoder_num_hidden_layers=2, decoder_num_attention_heads=2, decoder_intermediate_size=64,
    )  # fmt: skip
    theirs = randomised(transformers.ViTMAEForPreTraining(config))
    theirs.decoder.decoder_pos_embed.data[:, 0] = 0  # as it is built: CLS has no position in the decoder
    ours = MAE(vithub.load(theirs.vit, task="backbone"), PretrainingSettings(**DECODER, normalize_targets=normalize))
    renamed = {"decoder_embed": "entry", "decoder_norm": "norm", "decoder_pred": "exit", "decoder_layers": "parts"}
    state = {}
    for name, tensor in theirs.decoder.state_dict().items():
        first, _, rest = name.partition(".")
        if first in renamed:
            state[f"{renamed[first]}.{rest}"] = in_our_order(tensor) if first == "decoder_pred" else tensor
    state["hidden"] = theirs.decoder.mask_token.detach().flatten()
    ours.head.positions.copy_(theirs.decoder.decoder_pos_embed[0, 1:])
    ours.head.load_state_dict(state)
    noise = draw_noise([1, 2, 3], 16)
    expected = theirs(PIXELS, noise=noise).loss
    loss = ours(pixel_values=PIXELS, noise=noise).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    loss.backward()
    for name, parameter in ours.vit.layers.named_parameters():
        same = theirs.vit.layers.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, same, atol=1e-6, rtol=1e-4, msg=name)


def test_simmim_has_the_loss_of_transformers_and_of_our_own_model(randomised):
    config = transformers.ViTConfig(**SIZE, image_size=32, patch_size=8, encoder_stride=8, layer_norm_eps=1e-6)
    theirs = randomised(transformers.ViTForMaskedImageModeling(config))
    model = vithub.load(theirs)
    ours = SimMIM(model.vit, PretrainingSettings(method="simmim"))
    ours.head.load_state_dict(model.decoder.state_dict())
    mask = draw_mask([1, 2, 3], (4, 4), 10)
    loss = ours(pixel_values=PIXELS, mask=mask).mean().item()
    assert loss == pytest.approx(theirs(PIXELS, bool_masked_pos=mask).loss.item(), rel=1e-6)
    assert loss == pytest.approx(model(PIXELS, bool_masked_pos=mask).loss.item(), rel=1e-6)


BACKBONES = [
    {"position_embedding_type": "sincos"},
    {"num_register_tokens": 3, "position_embedding_prefix": False},
    {"use_cls_token": False, "pool": "mean", "norm_after_pool": True},
    {"embedding_norm": True, "qk_norm": True, "layer_scale_init_value": 0.1},
]


@pytest.mark.parametrize("fields", BACKBONES)
@pytest.mark.parametrize("image_hw", [(32, 32), (32, 48)])
def test_with_all_patches_visible_the_encoder_is_the_model(fields, image_hw, tiny, randomised):
    model = randomised(vithub.HubViTModel(tiny(**fields)))
    pixels = torch.randn(2, 3, *image_hw, generator=torch.Generator().manual_seed(1))
    patches = image_hw[0] * image_hw[1] // 64
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
        found = encode_visible(model, pixels, torch.arange(patches).expand(2, -1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_hidden_patches_are_not_computed_and_not_seen(tiny):
    model = vithub.HubViTModel(tiny()).eval()
    visible = torch.tensor([[0, 5, 9, 14]])

    def counted(compute):
        with FlopCounterMode(display=False) as counter:
            compute()
        return counter.get_total_flops()

    whole = counted(lambda: model(PIXELS[:1]))
    quarter = counted(lambda: encode_visible(model, PIXELS[:1], visible))
    assert quarter == counted(lambda: model(PIXELS[:1, :, :16, :16]))  # an image of just 4 patches
    assert quarter < 0.3 * whole
    changed = PIXELS[:1].clone()
    changed[..., 8:16, 0:8] += 1.0  # patch 4
    with torch.no_grad():
        assert torch.equal(encode_visible(model, changed, visible), encode_visible(model, PIXELS[:1], visible))


def test_every_image_hides_equally_many_patches_chosen_by_its_own_seed():
    masks = draw_mask(range(40), (4, 6), 3, unit=2)
    assert masks.sum(dim=1).tolist() == [12] * 40
    assert len({tuple(mask.tolist()) for mask in masks}) > 10
    squares = masks.view(40, 2, 2, 3, 2)
    assert torch.equal(squares.all(dim=4).all(dim=2), squares.any(dim=4).any(dim=2))  # squares are hidden as a whole
    assert torch.equal(draw_mask([7], (4, 6), 3, unit=2)[0], masks[7])
    assert torch.equal(draw_noise(range(3), 5)[2], draw_noise([2], 5)[0])


def learner(**values):
    fields = {name.replace("__", "."): value for name, value in values.items()}
    small = {"model.source": "vit-ti/4", "model.image_size": 12, "model.fields": {**SIZE}}
    recipe = Recipe(task="pretraining").with_values(small | fields)
    return build_learner(recipe, build_backbone(recipe, masks=True)[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pretraining__mask_ratio": 0.95}, r"pretraining\.mask_ratio: .* got 0\.95, which hides 9"),
        ({"pretraining__method": "simmim", "pretraining__mask_ratio": 0.95}, "got 0.95, which hides 9"),
        ({"pretraining__method": "simmim", "pretraining__mask_unit": 2}, r"mask_unit: must divide the 3 x 3 .* got 2"),
        ({"pretraining__decoder_width": 20, "pretraining__decoder_heads": 3}, "decoder_heads 3, got 20"),
        ({"model__image_size": 14}, r"`image_size` must be a multiple of `patch_size`, got 14 and 4"),
        ({"model__fields": {**SIZE, "position_embedding_type": "rotary"}}, r"pretraining\.method: .*rotary.* got mae"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_value_got(values, message):
    with pytest.raises(RecipeError, match=message):
        learner(**values)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5])
def test_a_mask_ratio_outside_of_0_to_1_is_refused(ratio):
    with pytest.raises(RecipeError, match=rf"pretraining\.mask_ratio: .*, got {ratio}"):
        Recipe().with_values({"pretraining.mask_ratio": ratio})


def test_a_method_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(RecipeError, match=r"pretraining\.method: .*'mae'.*'simmim'.*, got 'moco'"):
        Recipe().with_values({"pretraining.method": "moco"})
    with pytest.raises(ValueError, match=r"method.* must be one of mae, simmim, .*, got 'moco'"):
        vithub.pretrain(data="digits", method="moco")
