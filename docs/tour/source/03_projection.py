# %% [markdown]
# # The linear projection
#
# *Needs: [the start](01_start.md) (`show`, `model`, `untrained`).*
#
# A patch is flattened into a vector $x_p$ and multiplied with one learned matrix $E$, the same for all patches:
#
# $$z_p = E\, x_p + b, \qquad E \in \mathbb{R}^{D \times P^2 C}$$
#
# ([ViT](https://arxiv.org/abs/2010.11929), equation 1). $D$ is the width that every token keeps through the whole
# network. Each row of $E$ is a small image itself: a filter, which answers strongly where the patch looks like it.

# %%
P, D = config.patch_size, config.hidden_size
embedding = model.vit.embeddings.patch_embeddings
E, b = embedding.weight, embedding.bias  # (D, C * P * P), (D,)

image = test_pixels[:1]
rows = columns = SIZE // P
flat = image.reshape(1, 3, rows, P, columns, P).permute(0, 2, 4, 1, 3, 5).reshape(1, rows * columns, -1)
with torch.no_grad():
    by_hand = flat @ E.T + b  # (1, N, D)
    by_library = embedding(image)
    as_convolution = functional.conv2d(image, E.view(D, 3, P, P), b, stride=P).flatten(2).transpose(1, 2)
print(f"{flat.shape[1]} patches of {flat.shape[2]} numbers become {by_hand.shape[1]} tokens of {by_hand.shape[2]}")
assert torch.allclose(by_hand, by_library, atol=1e-5)
assert torch.allclose(by_hand, as_convolution, atol=1e-5)

# %% [markdown]
# The last line shows a second way to say the same: a **convolution** whose kernel is a patch and whose stride is a
# patch. That is how the code of most vision transformers spells it, and why their only convolution is no
# contradiction.
#
# `patch_filters` shows what the matrix has learned: the directions among the filters that hold most of their variance
# (principal components, as figure 7 of the paper shows them).

# %%
filters = vithub.patch_filters(model)
print(f"effective rank of the filters: {filters.effective_rank:.1f} trained, ", end="")
print(f"{vithub.patch_filters(untrained).effective_rank:.1f} untrained, of {len(filters.shares)} directions at most")
show(filters)

# %% [markdown]
# A network trained for days shows smooth waves and contrasts of colour here. Ours trained for a moment, so expect much
# of the noise that it started with. Scenes without their colour tell how much the network uses it:

# %%
grey = test_pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
with torch.no_grad():
    right_in_grey = float((model(grey).logits.argmax(-1) == test_labels).float().mean())
print(f"right about {accuracy(model):.1%} of the scenes in colour, and {right_in_grey:.1%} of the same in grey")
