# %% [markdown]
# # Multi-head attention
#
# *Needs: [the start](01_start.md) (`picture`, `model`).*
#
# One question per token is not much. So the channels are shared among $h$ **heads**. Each has its own queries, keys
# and values, of width $d_k = D / h$, and looks for itself. Their results are laid side by side and mixed by one more
# matrix:
#
# $$\text{MultiHead}(z) = W_o\,[\text{head}_1; \dots; \text{head}_h] + b_o$$
#
# ([Attention Is All You Need](https://arxiv.org/abs/1706.03762), section 3.2.2). It costs no more than one wide head
# would.

# %%
import math

from vithub.interpretability.analysis.plots import COLOR_MAP

layer = model.vit.layers[0]
attention = layer.attention
h, D = config.num_attention_heads, config.hidden_size
d_k = D // h


def split(states):
    """(B, N, D) to (B, h, N, d_k): the channels shared among the heads."""
    return states.unflatten(-1, (h, d_k)).transpose(1, 2)


with torch.no_grad():
    z = layer.layernorm_before(model.vit.embeddings(test_pixels))  # (B, N, D)
    Q, K, V = (split(z @ part.weight.T + part.bias) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    weights = (Q @ K.transpose(-1, -2) / math.sqrt(d_k)).softmax(-1)  # (B, h, N, N)
    heads = weights @ V  # (B, h, N, d_k)
    joined = heads.transpose(1, 2).flatten(2)  # (B, N, D)
    by_hand = joined @ attention.o_proj.weight.T + attention.o_proj.bias
    by_library, library_weights = attention(z, output_attentions=True)
    by_torch = functional.scaled_dot_product_attention(Q, K, V).transpose(1, 2).flatten(2)
print(f"by hand and by the library's layer: at most {(by_hand - by_library).abs().max():.1e} apart")
assert torch.allclose(by_hand, by_library, atol=1e-5)
assert torch.allclose(weights, library_weights, atol=1e-5)
assert torch.allclose(joined, by_torch, atol=1e-5)

# %% [markdown]
# The third check is against torch's fused attention, which never writes down the $N \times N$ matrix. Same numbers,
# less memory; it is what runs in practice.
#
# Do the heads look at different things? The view of CLS in each head of each layer, for one scene:

# %%
chosen = 3
side = SIZE // config.patch_size
views = [rows[0, :, 1:].unflatten(-1, (side, side)) for rows in vithub.attention_rows(model, test_pixels[chosen, None])]
with picture(3.8, 5.5) as (figure, _):
    grid = figure.subplots(len(views), h + 1)
    most = max(float(view.max()) for view in views)
    for number, view in enumerate(views):
        photo_panel(grid[number, 0], as_image(test_pixels[chosen]), "" if number else "the scene")
        grid[number, 0].set_ylabel(f"layer {number}")
        for head in range(h):
            axes = grid[number, 1 + head]
            drawn = axes.imshow(view[head], cmap=COLOR_MAP, vmin=0, vmax=most)
            axes.set(xticks=[], yticks=[], title="" if number else f"head {head}")
    figure.colorbar(drawn, ax=grid[:, 1:], shrink=0.5, label="weight of the patch in the view of CLS")

# %% [markdown]
# One scene proves little. Over all test scenes: how much of each head's view falls on the patches that the digit
# touches, against the part of the image that they are?

# %%
P = config.patch_size
starts = torch.arange(side) * P
y, x = test_corners[:, :1], test_corners[:, 1:]
in_rows, in_columns = ((starts + P > edge) & (starts < edge + DIGIT) for edge in (y, x))  # (B, side)
on_digit = (in_rows[:, :, None] & in_columns[:, None]).flatten(1).float()  # (B, side * side)
share = torch.stack(
    [
        (rows[:, :, 1:] * on_digit[:, None]).sum(-1).div(rows[:, :, 1:].sum(-1)).mean(0)
        for rows in vithub.attention_rows(model, test_pixels)
    ]
)  # (layers, heads)
area = float(on_digit.mean())
print(f"the digit touches {area:.0%} of the patches; of the view of CLS it has, by layer and head,")
for number, row in enumerate(share.tolist()):
    print(f"  layer {number}: " + "  ".join(f"{value:.0%}" for value in row))
assert float(share.max()) > area + 0.1
