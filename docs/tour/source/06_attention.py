# %% [markdown]
# # Queries, keys and values
#
# *Needs: [the start](01_start.md) (`picture`, `model`).*
#
# Here is the heart of it. Every token asks a question, every token offers an answer, and each takes a mixture of the
# answers that fit its question. Three learned matrices make of each token $z$
#
# - a **query** $q = W_q z + b_q$: what I look for,
# - a **key** $k = W_k z + b_k$: what I can be found by,
# - a **value** $v = W_v z + b_v$: what I give to those who find me.
#
# A query fits a key as far as their scalar product is large. Stacked for all tokens:
#
# $$\text{Attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d_k}}\right) V$$
#
# ([Attention Is All You Need](https://arxiv.org/abs/1706.03762), equation 1). We compute it for one head of the first
# layer of our network, with plain tensors and no shortcut.

# %%
import math

from matplotlib.patches import Rectangle
from vithub.interpretability.analysis.plots import COLOR_MAP

layer = model.vit.layers[0]
heads, D = config.num_attention_heads, config.hidden_size
d_k = D // heads
head = 0
mine = slice(head * d_k, (head + 1) * d_k)  # the rows of the matrices that belong to this head

with torch.no_grad():
    z = layer.layernorm_before(model.vit.embeddings(test_pixels[:1]))[0]  # (N, D): the tokens of one scene
    W_q, b_q = layer.attention.q_proj.weight[mine], layer.attention.q_proj.bias[mine]
    W_k, b_k = layer.attention.k_proj.weight[mine], layer.attention.k_proj.bias[mine]
    W_v, b_v = layer.attention.v_proj.weight[mine], layer.attention.v_proj.bias[mine]
    Q, K, V = z @ W_q.T + b_q, z @ W_k.T + b_k, z @ W_v.T + b_v  # (N, d_k) each
    scores = Q @ K.T / math.sqrt(d_k)  # (N, N): row i is what token i asks of all tokens
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)  # softmax
    mixed = weights @ V  # (N, d_k)
print(f"Q, K, V: {tuple(Q.shape)}; scores and weights: {tuple(weights.shape)}; result: {tuple(mixed.shape)}")
print(f"each row of the weights sums to {weights.sum(1).min():.4f} at least and {weights.sum(1).max():.4f} at most")

# %% [markdown]
# Is that what the library computes? `attention_maps` gives the weights of every layer of any model. They are equal:

# %%
by_library = next(vithub.attention_maps(model, test_pixels[:1]))[0, head]  # (N, N)
print(f"largest difference: {(weights - by_library).abs().max():.1e}")
assert torch.allclose(weights, by_library, atol=1e-5)

N = len(z)
side = SIZE // config.patch_size
with picture(2.5) as (figure, _):
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 0.8])
    for axes, values, title in zip(
        panels, (scores, weights), ("scores", "weights (softmax of each row)"), strict=False
    ):
        drawn = axes.imshow(values, cmap=COLOR_MAP, interpolation="nearest")
        axes.set(title=title, xlabel="key of token", ylabel="query of token")
        figure.colorbar(drawn, ax=axes, shrink=0.8)
    photo_panel(panels[2], as_image(test_pixels[0]), "the scene")

# %% [markdown]
# A row of the weights is one token's view of the image. Laid out as a grid it can be looked at: on the left the token
# that asks (its patch is framed), on the right where it looks. Only the patches are drawn, so that CLS is left out.

# %%
y, x = (test_corners[0] + DIGIT // 2).tolist()
asking = {"a patch of the digit": (y // config.patch_size, x // config.patch_size), "a corner": (0, 0)}
with picture(2.0) as (figure, colors):
    panels = figure.subplots(1, 4)
    for number, (name, (row, column)) in enumerate(asking.items()):
        left, right = panels[2 * number : 2 * number + 2]
        photo_panel(left, as_image(test_pixels[0]), f"asks: {name}")
        P = config.patch_size
        frame = ((column * P - 0.5, row * P - 0.5), P, P)
        left.add_patch(Rectangle(*frame, fill=False, edgecolor="white", lw=1.5))
        view = weights[1 + row * side + column, 1:].reshape(side, side)
        drawn = right.imshow(view, cmap=COLOR_MAP, vmin=0)
        right.set(title="looks at", xticks=[], yticks=[])
        figure.colorbar(drawn, ax=right, shrink=0.7, label="weight" if number else None)

# %% [markdown]
# Why divide by $\sqrt{d_k}$? A scalar product of $d_k$ independent terms of variance 1 has variance $d_k$. Without
# the division, wide heads would have large scores, softmax would put nearly all weight on one token, and almost no
# gradient would flow to the others. Random vectors show it:

# %%
generator = torch.Generator().manual_seed(0)
print("width   largest weight, plain   largest weight, divided   (means over random queries, 64 keys)")
largest = {}
for width in (4, 16, 64, 256):
    q, k = (torch.randn(64, width, generator=generator) for _ in range(2))
    largest[width] = [float((q @ k.T / scale).softmax(-1).amax(-1).mean()) for scale in (1, math.sqrt(width))]
    print(f"{width:5}   {largest[width][0]:21.2f}   {largest[width][1]:23.2f}")
assert largest[256][0] > largest[4][0] + 0.2
assert abs(largest[256][1] - largest[4][1]) < 0.1
