# %% [markdown]
# # Position embeddings
#
# *Needs: [the start](01_start.md) (`show`, `picture`, `model`, `untrained`).*
#
# Attention, which comes soon, treats its tokens as a *set*: it does not know their order. So the place must be part of
# the token. ViT simply adds a learned vector to each place:
#
# $$z_0 = [\,x_{class};\; E x_1;\; \dots;\; E x_N\,] + E_{pos}, \qquad E_{pos} \in \mathbb{R}^{(N + 1) \times D}$$
#
# ([ViT](https://arxiv.org/abs/2010.11929), equation 1; $x_{class}$ is on [the next page](05_cls_token.md)). First the
# claim: without positions, the order of the patches makes no difference to the answer.

# %%
import numpy as np

P = config.patch_size
rows = columns = SIZE // P


def shuffle_patches(pixels, order):
    """The patches of images in another order."""
    cut = pixels.reshape(len(pixels), 3, rows, P, columns, P).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return cut[:, order].unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5).reshape(pixels.shape)


order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0))
jumbled = shuffle_patches(test_pixels, order)
without = deepcopy(model)
with torch.no_grad():
    without.vit.embeddings.position_embeddings.zero_()
    same = torch.allclose(without(test_pixels).logits, without(jumbled).logits, atol=1e-3)
    change = (model(test_pixels).logits - model(jumbled).logits).abs().mean()
    jumbled_right = float((model(jumbled).logits.argmax(-1) == test_labels).float().mean())
print(f"without positions, the logits of ordered and jumbled patches are equal: {same}")
print(f"with them they differ by {change:.2f} on average, and the accuracy goes ", end="")
print(f"from {accuracy(model):.1%} to {jumbled_right:.1%}")
assert same
assert change > 0.01

with picture(1.9, 4.5) as (figure, _):
    left, right = figure.subplots(1, 2)
    photo_panel(left, as_image(test_pixels[0]), "a scene")
    photo_panel(right, as_image(jumbled[0]), "without positions, the same")

# %% [markdown]
# If the accuracy hardly falls, the network reads the scene mostly as a bag of patches: strokes without places are
# already a good guess at the digit. The longer it is trained, the more the places count.
#
# Nobody told the network that patches form a grid. Does it find out? `position_similarity` compares the embeddings of
# all pairs of places by the cosine of their angle. Each small map belongs to one place, and shows how alike it is to
# every other.

# %%
similarity = vithub.position_similarity(model)
show(similarity, 560)


def nearness(network):
    """Correlation between the similarity of two positions and their distance; below 0 where neighbours are alike."""
    found = vithub.position_similarity(network).similarity
    place = np.indices(found.shape).reshape(4, -1)
    distance = np.hypot(place[0] - place[2], place[1] - place[3])
    apart = distance > 0
    return np.corrcoef(found.flatten()[apart], distance[apart])[0, 1]


print(f"correlation of similarity with distance: {nearness(model):+.2f} trained, {nearness(untrained):+.2f} untrained")
print("below 0, near places have similar embeddings; at 0, the table knows nothing of space")

# %% [markdown]
# A correlation near 0 would mean that the training was too short for the table to learn. In a ViT trained for days,
# neighbours, rows and columns can be seen in it, as figure 7 of the paper shows.
#
# The table has one row per place, so what if an image is larger? The rows are a small image of $D$ channels, and an
# image can be resized. The package does that by itself: the same model reads any multiple of its patch.

# %%
tall = test_pixels.new_zeros(1, 3, 2 * SIZE, SIZE)
tall[0, :, SIZE:] = test_pixels[0]
with torch.no_grad():
    states = model.vit(tall).last_hidden_state
print(f"{tuple(tall.shape[2:])} pixels: {states.shape[1] - 1} patch tokens instead of {rows * columns}")
