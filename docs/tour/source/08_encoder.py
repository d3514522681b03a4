# %% [markdown]
# # The encoder
#
# *Needs: [the start](01_start.md) (`picture`, `model`).*
#
# Attention moves information *between* tokens. What a token makes of it, it works out alone, in a small network of
# two linear layers (MLP) with a bend (GELU) in between. Each of the two steps is preceded by a normalisation (LN),
# and its result is *added* to what was there:
#
# $$z' = z + \text{MultiHead}(\text{LN}(z)), \qquad z'' = z' + \text{MLP}(\text{LN}(z'))$$
#
# ([ViT](https://arxiv.org/abs/2010.11929), equations 2 and 3). The sum is the **residual stream**: every layer reads
# from it and writes its correction into it, and gradients flow back along it unhindered.

# %%
import math


def normalise(states, norm):
    """LayerNorm by hand: each token to mean 0 and variance 1, then a learned scale and shift."""
    mean, variance = states.mean(-1, keepdim=True), states.var(-1, keepdim=True, unbiased=False)
    return (states - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def encoder_layer(states, layer):
    """One layer by hand, but for the attention, which is on the pages before."""
    states = states + layer.attention(normalise(states, layer.layernorm_before))[0]
    inner = normalise(states, layer.layernorm_after) @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias
    bent = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))  # GELU
    return states + bent @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias


with torch.no_grad():
    states = [model.vit.embeddings(test_pixels)]
    for layer in model.vit.layers:
        states.append(encoder_layer(states[-1], layer))
    by_library = model.vit(test_pixels, output_hidden_states=True).hidden_states
for number, (mine, theirs) in enumerate(zip(states, by_library, strict=True)):
    assert torch.allclose(mine, theirs, atol=1e-3)
    print(f"after {number} layers: by hand and by the library at most {(mine - theirs).abs().max():.1e} apart")

# %% [markdown]
# What does the stream hold after each layer? A token has too many channels to draw, but three directions among them,
# those in which the patches of all scenes vary most, can be drawn as red, green and blue. Patches of one colour are
# alike to the network.

# %%
side = SIZE // config.patch_size
scenes_shown = range(6)
with picture(4.8, 6.2) as (figure, _):
    grid = figure.subplots(len(scenes_shown), len(states) + 1, squeeze=False)
    for column, layer_states in enumerate(states):
        tokens = layer_states[:, 1:]  # (B, N, D), without CLS
        centred = tokens - tokens.mean((0, 1))
        _, _, directions = torch.linalg.svd(centred.flatten(0, 1), full_matrices=False)
        colours = centred @ directions[:3].T  # (B, N, 3)
        low, high = colours.flatten(0, 1).quantile(torch.tensor([0.02, 0.98]), dim=0)
        colours = ((colours - low) / (high - low)).clamp(0, 1).unflatten(1, (side, side))
        for row in scenes_shown:
            photo_panel(grid[row, 0], as_image(test_pixels[row]), "" if row else "scene")
            photo_panel(
                grid[row, column + 1], colours[row], "" if row else (f"layer {column - 1}" if column else "input")
            )

# %% [markdown]
# Tokens become what they are about rather than what they look like. A figure for it: how well can it be told from a
# single patch token, by a linear layer fitted to half of the scenes, whether the digit touches its patch? (The figure
# is for the other half; always answering with the commoner case is the baseline.)

# %%
from sklearn.linear_model import LogisticRegression

P = config.patch_size
starts = torch.arange(side) * P
in_rows, in_columns = (
    (starts + P > test_corners[:, axis, None]) & (starts < test_corners[:, axis, None] + DIGIT) for axis in (0, 1)
)
touches = (in_rows[:, :, None] & in_columns[:, None]).flatten(1)  # (B, N)
half = len(test_pixels) // 2
common = max(float(touches[half:].float().mean()), 1 - float(touches[half:].float().mean()))
told = []
for layer_states in states:
    tokens = layer_states[:, 1:]
    tokens = (tokens - tokens.mean((0, 1))) / tokens.std((0, 1))
    reader = LogisticRegression(max_iter=100, tol=1e-3).fit(tokens[:half].flatten(0, 1), touches[:half].flatten())
    told.append(reader.score(tokens[half:].flatten(0, 1), touches[half:].flatten()))
print("baseline " + f"{common:.1%}; input and layers " + ", ".join(f"{value:.1%}" for value in told))
assert max(told) > common + 0.05

with picture(2.0, 4.0) as (figure, colors):
    axes = figure.subplots()
    axes.plot(range(len(told)), [100 * value for value in told], "o-", color=colors.colors[0], label="from one token")
    axes.axhline(100 * common, color=colors.faint, linestyle="--", label="commoner case")
    axes.set(xlabel="layers passed", ylabel="digit here? right (%)", xticks=range(len(told)))
    axes.legend()
