# %% [markdown]
# # Attention maps on photographs
#
# *Needs: [the start](01_start.md) (`show`, `picture`, `model`).*
#
# What did the network look at when it decided? The view of CLS in the last layer is a first answer, but not the
# whole: what stands in a token of the last layer has come there through all layers before. `vithub.explain` has three
# answers:
#
# - **attention**: the view of CLS in one layer, as it is;
# - **rollout**: the views of all layers multiplied through, with the residual as an identity
#   ([Abnar and Zuidema](https://arxiv.org/abs/2005.00928));
# - **relevance**: the same idea, but attention counts only as far as it raises the score of the class: gradient times
#   attention ([Chefer et al.](https://arxiv.org/abs/2103.15679)).
#
# And a **random** map, to compare with.

# %%
methods = ("attention", "rollout", "relevance", "random")
explained = {method: vithub.explain(model, test_pixels, method) for method in methods}
with picture(4.6, 5.6) as (figure, _):
    grid = figure.subplots(5, len(methods) + 1)
    for row in range(5):
        photo_panel(grid[row, 0], as_image(test_pixels[row]), "" if row else "scene")
        for column, (method, explanation) in enumerate(explained.items(), 1):
            photo_panel(grid[row, column], explanation.overlay(as_image(test_pixels[row]), row), "" if row else method)

# %% [markdown]
# Pictures of a few scenes flatter or damn a method by chance. Here we *know* where the digit is, so it can be
# measured. The pointing game asks: does the maximum of the map lie within the digit? The second figure is the part of
# the map that falls into the digit's square, against the part of the image that the square is.

# %%
area = DIGIT**2 / SIZE**2
y, x = test_corners[:, :1], test_corners[:, 1:]
line = torch.arange(SIZE)
inside = ((line >= y) & (line < y + DIGIT))[:, :, None] & ((line >= x) & (line < x + DIGIT))[:, None]  # (B, H, W)
hits, shares = {}, {}
for method, explanation in explained.items():
    maps = explanation.maps.clamp(min=0)
    hits[method] = float(inside.flatten(1).gather(1, maps.flatten(1).argmax(1, keepdim=True)).float().mean())
    shares[method] = float(((maps * inside).sum((1, 2)) / maps.sum((1, 2)).clamp(min=1e-12)).mean())
    print(
        f"{method:10} points at the digit in {hits[method]:4.0%} of scenes, has {shares[method]:4.0%} of its map there"
    )
print(f"the digit's square is {area:.0%} of the image")
assert hits["relevance"] > hits["random"] + 0.15

# %% [markdown]
# A larger photograph, which the network was not trained for: its positions are resampled to the new size. We write
# several digits into it and ask for each of them what speaks for *that* class.

# %%
wanted = (3, 7, 0)
height, width = 2 * SIZE, 4 * SIZE
written = [int(TEST[(test_labels == digit).nonzero()[0]]) for digit in wanted]
places = [(6, 8), (30, 40), (10, 74)]
paper = 0.5 * functional.interpolate(photos[0][None, :, 80:400, :], (height, width), mode="area")[0]
large = (write_digits(written, places, paper)[None] - MEAN) / STD
with picture(2.9) as (figure, _):
    grid = figure.subplots(2, 2).flatten()
    photo_panel(grid[0], as_image(large[0]), "a photograph with three digits")
    for axes, digit in zip(grid[1:], wanted, strict=True):
        explanation = vithub.explain(model, large, "relevance", target=digit)
        photo_panel(axes, explanation.overlay(as_image(large[0])), f"what speaks for {digit}")

scores = model(large).logits.softmax(-1)[0]
print("probabilities: " + ", ".join(f"{digit}: {scores[digit]:.0%}" for digit in range(10)))
for digit, (y, x) in zip(wanted, places, strict=True):
    found = vithub.explain(model, large, "relevance", target=digit).maps[0].clamp(min=0)
    part = found[y : y + DIGIT, x : x + DIGIT].sum() / found.sum()
    print(f"of the map for {digit}, {part:.0%} lies on the {digit} ({DIGIT**2 / (height * width):.0%} of the image)")

# %% [markdown]
# Read such maps with care. The figures above say how far they can be trusted on this network and this task, and no
# more. [Explaining](../explain.md) says when to use which method, and [What they are worth](../faithfulness.md)
# measures them on real photographs and real networks.
