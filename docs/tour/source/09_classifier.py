# %% [markdown]
# # The classifier
#
# *Needs: [the start](01_start.md) (`picture`, `model`).*
#
# After the last layer only CLS is read. It is normalised once more, multiplied with a matrix that has one row per
# class, and softmax makes probabilities of the result:
#
# $$y = \text{LN}(z_L^{class}), \qquad p = \text{softmax}(W y + b)$$
#
# ([ViT](https://arxiv.org/abs/2010.11929), equation 4). All patch tokens of the last layer are thrown away.

# %%
from vithub.interpretability.analysis.plots import COLOR_MAP

with torch.no_grad():
    stream = model.vit(test_pixels, output_hidden_states=True).hidden_states[-1]
    y = model.vit.layernorm(stream[:, 0])  # (B, D)
    logits = y @ model.classifier.weight.T + model.classifier.bias  # (B, classes)
    by_library = model(test_pixels).logits
assert torch.allclose(logits, by_library, atol=1e-4)
probabilities = logits.softmax(-1)
answers = probabilities.argmax(-1)
print(f"logits by hand and by the library at most {(logits - by_library).abs().max():.1e} apart")

with picture(2.6) as (figure, colors):
    grid = figure.subplots(2, 5, height_ratios=[1.2, 1])
    for number in range(5):
        photo_panel(grid[0, number], as_image(test_pixels[number]), f"label {test_labels[number]}")
        bars = [colors.colors[1 if digit == test_labels[number] else 0] for digit in range(10)]
        grid[1, number].bar(range(10), probabilities[number], color=bars)
        grid[1, number].set(ylim=(0, 1), xticks=range(0, 10, 3), xlabel="digit", yticks=[0, 1])
    grid[1, 0].set_ylabel("probability")

# %% [markdown]
# (In orange: the right class.) How often is it right, and what does it confuse? A part of a few hundred scenes is
# itself only a sample, so the figure has an interval: it is computed again for many draws of as many scenes with
# replacement (bootstrap).

# %%
right = (answers == test_labels).float()
draws = torch.randint(len(right), (2000, len(right)), generator=torch.Generator().manual_seed(0))
low, high = (100 * right[draws].mean(1)).quantile(torch.tensor([0.025, 0.975])).tolist()
print(f"right: {100 * right.mean():.1f} %, with 95 % confidence {low:.1f} to {high:.1f} %")

confusion = torch.zeros(10, 10, dtype=torch.long)
confusion.index_put_((test_labels, answers), torch.ones(len(answers), dtype=torch.long), accumulate=True)
wrong = confusion.clone().fill_diagonal_(0)
true, said = divmod(int(wrong.argmax()), 10)
print(f"its commonest error: {int(wrong.max())} times it takes a {true} for a {said}")

with picture(2.8, 3.6) as (figure, _):
    axes = figure.subplots()
    drawn = axes.imshow(confusion, cmap=COLOR_MAP)
    axes.set(xlabel="answer", ylabel="label", xticks=range(10), yticks=range(10))
    figure.colorbar(drawn, label="scenes")
