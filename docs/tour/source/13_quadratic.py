# %% [markdown]
# # Why attention is quadratic
#
# *Needs: [the start](01_start.md) (`picture`, `model`).*
#
# Every token looks at every token. With $N$ tokens of width $D$, and an MLP four times as wide, a layer needs
#
# $$\underbrace{12\, N D^2}_{\text{tokens times weights}} + \underbrace{2\, N^2 D}_{\text{tokens times tokens}}$$
#
# multiply-accumulates: the weights ($4 D^2$ for queries, keys, values and output; $8 D^2$ for the MLP) are used once
# per token, while $Q K^\top$ and its product with $V$ are computed for every *pair* (count it from [Attention Is All
# You Need](https://arxiv.org/abs/1706.03762), section 3). Twice the side of an image is four times the tokens and
# sixteen times the pairs.
#
# The package counts operations where torch computes them. The count must be that of the formula (whose general form,
# for any width of the MLP, is `closed_form_macs`):

# %%
import numpy as np
from vithub.comparison.closed_form import closed_form_macs, crossover_pixels
from vithub.comparison.growth import growth_exponent
from vithub.comparison.operation_count import count_model
from vithub.comparison.timing import interleaved_times
from vithub.interpretability.analysis.plots import MARKERS

sides = [24, 48, 96, 144]
blank = {side: torch.zeros(1, 3, side, side) for side in sides}
counts = {side: count_model(model, pixels).checked() for side, pixels in blank.items()}
print(" side  tokens   million MACs   of them token times token")
for side, count in counts.items():
    assert count.macs == closed_form_macs(config, (side, side))
    tokens = (side // config.patch_size) ** 2 + 1
    print(f"{side:5}  {tokens:6}   {count.macs / 1e6:12.1f}   {count.by_kind['attention'] / count.macs:.0%}")

# %% [markdown]
# And on the clock? The sizes are run in turns, so that what else the machine does disturbs all alike, and the median
# counts. We compare the plain computation, which writes the $N \times N$ weights down, with torch's fused one, which
# does not. The *growth* is the exponent $k$ of $\text{cost} \sim \text{pixels}^k$ between the two largest images: 1
# is linear, 2 quadratic.

# %%
seconds = {}
for implementation in ("eager", "sdpa"):
    network = deepcopy(model)
    network.set_attn_implementation(implementation)
    steps = {
        str(side): (lambda pixels=pixels, network=network: network(pixels).logits) for side, pixels in blank.items()
    }
    with torch.no_grad():
        times = interleaved_times(steps, rounds=15)
    seconds[implementation] = [float(np.median(times[str(side)])) for side in sides]

pixels = [side**2 for side in sides]
attention, linear = ([counts[side].by_kind[kind] / 1e6 for side in sides] for kind in ("attention", "linear"))
print("     side: " + "".join(f"{side:>10} px" for side in sides))
for name, values in seconds.items():
    print(f"{name:>9}: " + "".join(f"{1e3 * value:>10.1f} ms" for value in values))
costs = {"MACs, token times token": attention, "MACs, token times weight": linear, **seconds}
for name, values in costs.items():
    print(f"growth of {name}: {float(growth_exponent(pixels[-2:], np.array(values[-2:]))):.2f}")
assert 1.95 < growth_exponent(pixels, np.array(attention)) < 2.05
assert 0.95 < growth_exponent(pixels, np.array(linear)) < 1.05

with picture(2.5) as (figure, colors):
    left, right = figure.subplots(1, 2)
    for axes, series, label in (
        (left, {"token times weight": linear, "token times token": attention}, "million MACs"),
        (right, {name: [1e3 * value for value in values] for name, values in seconds.items()}, "milliseconds"),
    ):
        for number, (name, values) in enumerate(series.items()):
            axes.plot(sides, values, MARKERS[number] + "-", color=colors.colors[number], label=name)
        axes.set(xscale="log", yscale="log", xlabel="side of the image (pixels)", ylabel=label)
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.minorticks_off()
        axes.legend()

# %% [markdown]
# Where does the square overtake? The two terms are equal at $N = 6 D$. For our narrow network that is soon; for the
# networks of the paper it is later than the resolution that they are used at, so that the square is *not* what makes
# them expensive there. (The presets are those of the ViT and DeiT papers.)

# %%
ours = crossover_pixels(config.hidden_size, config.patch_size)
print(f"{'ours':>8}: token times token is the larger part from {ours:.0f} px on,")
print("          if its MLP were four times as wide")
for name in ("Ti", "S", "B", "L"):
    preset = vithub.HubViTConfig.preset(name)
    side = crossover_pixels(preset.hidden_size, preset.patch_size)
    tokens = (preset.image_size // preset.patch_size) ** 2
    share = tokens / (6 * preset.hidden_size + tokens)
    full = f"ViT-{name}/{preset.patch_size}"
    print(f"{full:>8}: from {side:.0f} px on; at {preset.image_size} px it is {share:.0%}")
