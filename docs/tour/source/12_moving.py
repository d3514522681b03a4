# %% [markdown]
# # Moving the image
#
# *Needs: [the start](01_start.md) (`picture`, `model`, `untrained`, `SmallCNN`, `fit`).*
#
# A convolution treats every place alike: move the image, and its features move along. That is **equivariance**,
# $f(\text{shift}(x)) = \text{shift}(f(x))$. A ViT has that built in only in part: its projection treats all patches
# alike, so that it is equivariant to shifts by *whole patches*; the position embeddings then tell the places apart.
#
# We roll the image round its edges, so that nothing leaves it, and measure how far the features of the moved image
# are from the moved features (0: equivariant; about the square root of 2: unrelated). First the CNN is trained.

# %%
from vithub.interpretability.analysis.plots import COLOR_MAP, MARKERS

_ = torch.manual_seed(0)
cnn = SmallCNN()
_ = fit(cnn, steps=120, learning_rate=8e-3)
print(f"{sum(p.numel() for p in cnn.parameters()):,} parameters, right about {accuracy(cnn):.1%} of the test scenes")

# %%
from vithub.comparison.feature_maps import token_grid
from vithub.comparison.shift_consistency import equivariance_error, shift_grid, shift_table

P = config.patch_size
without = deepcopy(model)
with torch.no_grad():
    without.vit.embeddings.position_embeddings.zero_()


def patch_features(network):
    """The last layer's patch tokens as a map."""
    return lambda pixels: token_grid(network.vit(pixels).last_hidden_state, tuple(pixels.shape[2:]))


networks = {"CNN": cnn.features, "ViT without positions": patch_features(without), "ViT": patch_features(model)}
shifts = range(SIZE // 2 + 1)
errors = {}
with torch.no_grad():
    for name, features in networks.items():
        errors[name] = [float(equivariance_error(features, test_pixels[:64], (0, by)).mean()) for by in shifts]
        print(f"{name:22} " + " ".join(f"{value:.2f}" for value in errors[name]))
assert max(errors["CNN"]) < 1e-3
assert max(errors["ViT without positions"][::P]) < 1e-3
assert min(errors["ViT without positions"][1:P]) > 0.05
assert min(errors["ViT"][1:]) > 0.05

with picture(2.3, 4.6) as (figure, colors):
    axes = figure.subplots()
    for number, (name, values) in enumerate(errors.items()):
        axes.plot(shifts, values, MARKERS[number] + "-", color=colors.colors[number], label=name, markersize=4)
    axes.set(xlabel="shift (pixels)", ylabel="equivariance error", xticks=shifts[::P])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)

# %% [markdown]
# The ticks are whole patches. The CNN stays at zero everywhere, the ViT without positions returns to zero at each
# tick, the real ViT does not.
#
# For a classifier what counts is its *answer*. We move scenes by every possible shift and ask whether the answer
# stays. Each cell of a map is one shift, and its brightness the part of the scenes that keep their answer.

# %%
grid = shift_grid((SIZE, SIZE), 2)
moved = test_pixels[:24]
contestants = {"CNN": cnn, "ViT without positions": without, "ViT": model}
stays = {}
with torch.no_grad():
    for name, network in contestants.items():
        agreement, _ = shift_table(lambda pixels, network=network: network(pixels).logits, moved, grid, batch_size=24)
        stays[name] = agreement.mean(0).reshape(SIZE // 2, SIZE // 2)
        print(f"{name:22} keeps its answer in {float(agreement.mean()):.1%} of scenes and shifts")
assert float(stays["CNN"].mean()) > 0.995
assert float(stays["ViT without positions"][:: P // 2, :: P // 2].min()) > 0.95
assert float(stays["ViT"].mean()) < float(stays["CNN"].mean())

with picture(2.4) as (figure, _):
    panels = figure.subplots(1, 3)
    for axes, (name, values) in zip(panels, stays.items(), strict=True):
        drawn = axes.imshow(100 * values, cmap=COLOR_MAP, vmin=0, vmax=100, extent=(-1, SIZE - 1, SIZE - 1, -1))
        axes.set(
            title=name, xlabel="shift to the right (pixels)", xticks=range(0, SIZE, 2 * P), yticks=range(0, SIZE, 2 * P)
        )
    panels[0].set_ylabel("shift down (pixels)")
    figure.colorbar(drawn, ax=panels, label="answers kept (%)", shrink=0.8)

# %% [markdown]
# What the ViT keeps of its answers between whole patches is *learned*: training showed it digits in all places. The CNN
# would keep them without having learned anything. This is what is meant by an **inductive bias**, and why a ViT wants
# more data, or more augmentation, than a CNN.
#
# The second bias of a CNN is **locality**: its layers look at neighbours. A ViT may look anywhere from the first
# layer on. Does it? `attention_distance` is the mean distance between a patch and those that it attends to, in
# pixels, head by head.

# %%
distance, distance_before = (vithub.attention_distance(network, test_pixels[:64]) for network in (model, untrained))
print(f"attention that is the same everywhere would reach {distance.uniform:.1f} pixels")
for layer, (after, before) in enumerate(zip(distance.distances, distance_before.distances, strict=True)):
    print(
        f"layer {layer}: untrained {before.min():.1f} to {before.max():.1f} pixels, "
        f"trained {after.min():.1f} to {after.max():.1f}"
    )
show(distance, 520)

# %% [markdown]
# In a CNN the reach of the first layer is fixed by its kernel. [Comparing](../comparing.md) measures all of this on
# real networks and photographs, at equal accuracy, where it must be compared.
