# %% [markdown] page=01_start
# # A tour of the vision transformer
#
# This is a vision transformer taken apart. Each page has one idea, a few lines of code and a picture, and everything
# is computed where you read it: the pictures, and every figure. Nothing is downloaded. You need to know what a matrix
# product is, and roughly what it means to train a network by gradient descent.
#
# *Needs: nothing. Every other page needs this one, and no other, so run this page and then start wherever you like.*
#
# The parts come from four papers, and each formula names the one that it is from:
#
# - *Attention Is All You Need*, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762): attention and the encoder;
# - *An Image is Worth 16x16 Words*, [arXiv:2010.11929](https://arxiv.org/abs/2010.11929): the vision transformer, ViT;
# - *Training data-efficient image transformers*, [arXiv:2012.12877](https://arxiv.org/abs/2012.12877): a teacher, DeiT;
# - *End-to-End Object Detection with Transformers*, [arXiv:2005.12872](https://arxiv.org/abs/2005.12872): boxes, DETR.
#
# First what we work with. `show` displays a result of the package, and `picture` is a figure in the package's style.

# %%
import math
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from IPython.display import display
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch.nn import functional
from vithub.interpretability.paper_figures import COLOR_MAP, MARKERS, PAGE, paper_figure, tile

import vithub

_ = torch.manual_seed(0)
_ = torch.set_num_threads(1)  # networks as small as these are slower with more


def show(result, wide=1000):
    """Displays what a result's `save` draws, small enough for a page."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        result.save(file)
        drawn = Image.open(file).convert("RGB")
    drawn.thumbnail((wide, 2 * wide), Image.Resampling.LANCZOS)
    display(drawn.quantize(colors=160, dither=Image.Dither.NONE))


@contextmanager
def picture(height=2.4, width=PAGE):
    """A figure of the package's style, displayed when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        with paper_figure(file, width, height) as drawing:
            yield drawing
        with Image.open(file) as drawn:
            show(drawn, round(1000 * width / PAGE))


def photo_panel(axes, image, title=""):
    """A photograph without ticks."""
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


# %% [markdown]
# ## A small world
#
# A real ViT learns from millions of photographs for days. We have minutes, so we need a world that is small and still
# has what makes images hard: things stand anywhere, before any background. scikit-learn brings two photographs and a
# set of handwritten digits. We write a digit somewhere into a dark cutting of a photograph, and ask which digit it is.
#
# The digits are split once: those of the test were never seen in training.

# %%
SIZE, DIGIT = 24, 12  # pixels of a scene and of a digit in it
MEAN, STD = 0.3, 0.25  # pixels are given to networks as (value - MEAN) / STD

photos = [torch.tensor(photo).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
small_photos = [functional.interpolate(photo[None], scale_factor=0.25, mode="area")[0] for photo in photos]
digits = load_digits()
LABELS = torch.tensor(digits.target)
strokes = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
shuffled = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
TRAIN, TEST = shuffled[:1400], shuffled[1400:]


def write_digits(numbers, corners, paper, size=DIGIT):
    """Writes digits into an image (3, height, width), each with its top left corner at (y, x)."""
    paper = paper.clone()
    for number, (y, x) in zip(numbers, corners, strict=True):
        ink = functional.interpolate(strokes[number][None], (size, size), mode="bilinear", align_corners=False)[0]
        place = paper[:, y : y + size, x : x + size]
        place.copy_(place * (1 - ink) + ink)
    return paper


def cutting(generator, height, width, light=0.5):
    """A dark part of a photograph, (3, height, width)."""
    photo = small_photos[int(torch.randint(2, (), generator=generator))]
    room = photo.shape[1] - height, photo.shape[2] - width
    y, x = (int(torch.randint(1 + most, (), generator=generator)) for most in room)
    return light * photo[:, y : y + height, x : x + width]


def scenes(numbers, generator):
    """One scene for each digit: pixels (B, 3, SIZE, SIZE) for a network, and the corners (B, 2) of the digits."""
    corners = torch.randint(SIZE - DIGIT + 1, (len(numbers), 2), generator=generator)
    images = [
        write_digits([number], [corner], cutting(generator, SIZE, SIZE))
        for number, corner in zip(numbers.tolist(), corners.tolist(), strict=True)
    ]
    return (torch.stack(images) - MEAN) / STD, corners


def as_image(pixels):
    """(3, height, width) as a network sees it, as (height, width, 3) in [0, 1]."""
    return (pixels * STD + MEAN).clamp(0, 1).permute(1, 2, 0).numpy()


test_pixels, test_corners = scenes(TEST, torch.Generator().manual_seed(1))
test_labels = LABELS[TEST]
print(f"{len(TRAIN)} digits to learn from, {len(TEST)} to judge by; a scene is a tensor {tuple(test_pixels[0].shape)}")

with picture(1.5) as (figure, _):
    for axes, pixels, label in zip(figure.subplots(1, 8), test_pixels, test_labels, strict=False):
        photo_panel(axes, as_image(pixels), f"label {label}")

# %% [markdown]
# ## The network that we take apart
#
# It is an ordinary ViT of the package, only small, and it comes with the loop that trains it: draw scenes, compute the
# loss, step. New places are drawn at every step, so that the network hardly sees a scene twice. While it learns we
# keep copies of it, for the page on [how classes come together](10_training.md).

# %%
from copy import deepcopy


def fit(network, steps, learning_rate=2e-3, labels=LABELS, teacher=None, keep=(), seed=0):
    """Trains a classifier on scenes and returns copies of it as it was at the steps in `keep`."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    kept = {}
    for step in range(steps):
        if step in keep:
            kept[step] = deepcopy(network).eval()
        network.train()
        numbers = TRAIN[torch.randint(len(TRAIN), (64,), generator=generator)]
        pixels, _ = scenes(numbers, generator)
        taught = {}
        if teacher is not None:
            with torch.no_grad():
                taught = {"teacher_logits": teacher(pixels).logits}
        loss = network(pixels, labels=labels[numbers], **taught).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    network.eval()
    return kept


@torch.no_grad()
def accuracy(network):
    """Part of the test scenes that a network names rightly."""
    return float((network(test_pixels).logits.argmax(-1) == test_labels).float().mean())


# %%
config = vithub.HubViTConfig(
    image_size=SIZE,
    patch_size=4,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=128,
    num_labels=10,
    initializer_range=0.1,
)

# %%
model = vithub.HubViTForImageClassification(config)
with torch.no_grad():
    model.vit.embeddings.position_embeddings.mul_(5)  # larger than usual, as there is little time to learn them
kept = fit(model, steps=400, keep=(0, 120))
untrained = kept[0]
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
print(f"right about {accuracy(untrained):.1%} of the test scenes before training, {accuracy(model):.1%} after")
assert accuracy(model) > accuracy(untrained) + 0.3

# %% [markdown]
# And a small convolutional network to compare with. Every layer looks at neighbours only and treats every place alike;
# at the end the strongest answer of each channel is taken, wherever it is. It is trained on the pages that need it.

# %%
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput


class SmallCNN(nn.Module):
    """Convolutions of stride 1, each further apart, round the edges of the image; then the maximum over all places."""

    def __init__(self, widths=(8, 16, 16, 24, 32), dilations=(1, 1, 2, 2, 3)):
        super().__init__()
        layers, before = [], 3
        for width, dilation in zip(widths, dilations, strict=True):
            convolution = nn.Conv2d(
                before, width, 3, padding=dilation, dilation=dilation, padding_mode="circular", bias=False
            )
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(before, 10)

    def forward(self, pixel_values, labels=None):
        logits = self.classifier(self.features(pixel_values).amax((2, 3)))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


# %% [markdown] page=02_patches
# # From pixels to patches
#
# *Needs: [the start](01_start.md) (`picture`, `scenes`, `model`).*
#
# A transformer reads a row of tokens. For text these are pieces of words. An image has no words, and one token for
# each pixel would be far too many (we will [measure](13_quadratic.md) why). The idea that gave the paper its name is
# to cut the image into square **patches** and to take each patch as a word ([ViT](https://arxiv.org/abs/2010.11929),
# section 3.1). With images of $H \times W$ pixels, $C$ channels and patches of $P \times P$ pixels there are
#
# $$N = \frac{H W}{P^2} \text{ patches of } P^2 C \text{ numbers each.}$$

# %%
P = config.patch_size
image = test_pixels[0]  # (C, H, W)
C, H, W = image.shape
patches = image.reshape(C, H // P, P, W // P, P).permute(1, 3, 0, 2, 4)  # (rows, columns, C, P, P)
rows, columns = patches.shape[:2]
N = rows * columns
print(f"{H} x {W} pixels, patches of {P} x {P}: {rows} x {columns} = {N} patches of {patches[0, 0].numel()} numbers")
assert N == H * W // P**2

with picture(2.3) as (figure, colors):
    left, right = figure.subplots(1, 2)
    photo_panel(left, as_image(image), "a scene")
    sheet = tile(np.stack([as_image(patch) for patch in patches.flatten(0, 1)]), columns)
    photo_panel(right, np.nan_to_num(sheet, nan=1.0), "the same, cut into patches")

# %% [markdown]
# Nothing is lost by cutting: laid side by side the patches are the image again.
#
# What the cut does throw away is the knowledge of which pixels are neighbours *across* a border, and, once the patches
# stand in a row, of which patch was where. Both have to be learned. A whole stroke of a digit may lie in four patches:

# %%
again = patches.permute(2, 0, 3, 1, 4).reshape(C, H, W)
assert torch.equal(again, image)

y, x = test_corners[0].tolist()
touched = {(v // P, u // P) for v in range(y, y + DIGIT) for u in range(x, x + DIGIT)}
print(f"the digit of this scene lies in {len(touched)} of the {N} patches")

with picture(1.2) as (figure, _):
    (axes,) = figure.subplots(1, 1, squeeze=False)[0]
    line = tile(np.stack([as_image(patch) for patch in patches.flatten(0, 1)]), N)
    photo_panel(axes, np.nan_to_num(line, nan=1.0), "what the transformer is given: a row of patches")

# %% [markdown] page=03_projection
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

# %% [markdown] page=04_positions
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

# %% [markdown] page=05_cls_token
# # The CLS token
#
# *Needs: [the start](01_start.md) (`picture`, `model`, `untrained`).*
#
# There is one token for each patch, and one answer for the image. Who gives it? ViT takes an idea from language
# models: a further token $x_{class}$ is put in front. It is a learned vector, **the same for every image**. It
# belongs to no patch and has nothing to say at first, so that all it can do is to collect from the others what the
# answer needs ([ViT](https://arxiv.org/abs/2010.11929), section 3.1).

# %%
embeddings = model.vit.embeddings
with torch.no_grad():
    tokens = embeddings(test_pixels)  # (B, 1 + N, D)
    patches = embeddings.patch_embeddings(test_pixels) + embeddings.position_embeddings[:, 1:]
    cls = embeddings.cls_token + embeddings.position_embeddings[:, :1]
    by_hand = torch.cat([cls.expand(len(test_pixels), -1, -1), patches], dim=1)
assert torch.allclose(by_hand, tokens, atol=1e-5)
print(f"{tuple(tokens.shape)}: images, tokens (CLS and {tokens.shape[1] - 1} patches), channels")
print(f"at the entrance, CLS differs between images by {tokens[:, 0].std(0).max():.2g}")
assert bool((tokens[:, 0] == tokens[0, 0]).all())

# %% [markdown]
# Layer by layer it then becomes a description of its image. How different from each other are the CLS tokens of two
# scenes of the same digit, and of two different digits? We measure by the cosine of the angle between them, less their
# common part (the mean over all scenes):

# %%


@torch.no_grad()
def alikeness(network):
    """Mean cosine between CLS tokens of scenes of one digit, and of two digits, at the output of each layer."""
    states = network(test_pixels, output_hidden_states=True).hidden_states
    same = test_labels[:, None] == test_labels[None]
    pairs = ~torch.eye(len(same), dtype=torch.bool)
    found = []
    for layer in states[1:]:
        cls = layer[:, 0] - layer[:, 0].mean(0)
        cosines = functional.normalize(cls, dim=1) @ functional.normalize(cls, dim=1).T
        found.append((float(cosines[same & pairs].mean()), float(cosines[~same].mean())))
    return np.array(found)


trained_pairs, untrained_pairs = alikeness(model), alikeness(untrained)
gap, gap_before = (pairs[-1, 0] - pairs[-1, 1] for pairs in (trained_pairs, untrained_pairs))
print(f"at the last layer, scenes of one digit are closer by {gap:.2f}; without training by {gap_before:.2f}")
assert gap > gap_before + 0.1

with picture(2.2) as (figure, colors):
    panels = figure.subplots(1, 2, sharey=True)
    layers = np.arange(1, len(trained_pairs) + 1)
    for axes, pairs, title in zip(panels, (untrained_pairs, trained_pairs), ("untrained", "trained"), strict=True):
        for number, name in enumerate(("of the same digit", "of two digits")):
            axes.plot(layers, pairs[:, number], MARKERS[number] + "-", color=colors.colors[number], label=name)
        axes.set(title=title, xlabel="after layer", xticks=layers)
    panels[0].set_ylabel("cosine between CLS tokens")
    panels[0].legend()

# %% [markdown] page=06_attention
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

# %% [markdown] page=07_heads
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
with picture(4.6, 5.5) as (figure, _):
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

# %% [markdown] page=08_encoder
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

# %% [markdown] page=09_classifier
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

# %% [markdown] page=10_training
# # How the classes come together
#
# *Needs: [the start](01_start.md) (`show`, `kept`, `model`).*
#
# At the beginning, the CLS token after the last layer says next to nothing of the digit; at the end, a linear layer
# reads the digit from it. In between, scenes of one digit must have moved together. The start kept copies of the
# network from during its training. `layer_features` reads what the classifier is given, and `project` draws its two
# main directions.
#
# What is lost in the plane is not lost in the figures above the panels. They are computed from all channels: the
# *silhouette* compares how near a scene is to its own class and to the nearest other (1: far apart, 0: mixed), and
# *k-NN* is how often the nearest other scenes vote for the right digit.

# %%
stages = {f"after {step} steps" if step else "before training": network for step, network in kept.items()}
stages["after training"] = model
features = {name: vithub.layer_features(network, test_pixels).last for name, network in stages.items()}
projection = vithub.project(features, test_labels.tolist(), [str(digit) for digit in range(10)])
show(projection)

# %%
for name, network in stages.items():
    silhouette, neighbours = projection.silhouettes[name], projection.knn_accuracies[name]
    print(f"{name:16} silhouette {silhouette:+.2f}, k-NN {neighbours:.1%}, classifier {accuracy(network):.1%}")
first, *_, last = stages
assert projection.silhouettes[last] > projection.silhouettes[first] + 0.05
assert projection.knn_accuracies[last] > projection.knn_accuracies[first] + 0.2

# %% [markdown]
# In which layer does it happen? The same figure, from CLS after each layer, for each of the copies:

# %%
from vithub.interpretability.projections import knn_accuracy

found = {}
for name, network in stages.items():
    with torch.no_grad():
        states = network(test_pixels, output_hidden_states=True).hidden_states[1:]
    found[name] = [100 * knn_accuracy(layer[:, 0].numpy(), test_labels.numpy()) for layer in states]
    print(f"{name:16} " + "  ".join(f"{value:.0f} %" for value in found[name]))

with picture(2.3, 4.2) as (figure, colors):
    axes = figure.subplots()
    for number, (name, values) in enumerate(found.items()):
        axes.plot(range(len(values)), values, MARKERS[number] + "-", color=colors.colors[number], label=name)
    axes.set(xlabel="CLS after layer", ylabel="k-NN accuracy (%)", xticks=range(len(values)), ylim=(0, 100))
    axes.legend()

# %% [markdown] page=11_photographs
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

# %% [markdown] page=12_moving
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

# %% [markdown] page=13_quadratic
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
from vithub.comparison.closed_form import closed_form_macs, crossover_pixels
from vithub.comparison.growth import growth_exponent
from vithub.comparison.operation_count import count_model
from vithub.comparison.timing import interleaved_times

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
        times = interleaved_times(steps, rounds=5)
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

# %% [markdown] page=14_deit
# # DeiT: learning from a teacher
#
# *Needs: [the start](01_start.md) (`picture`, `fit`, `accuracy`, `config`, `SmallCNN`).*
#
# A CNN knows from the start that a thing may stand anywhere; a ViT must learn it. DeiT lets the one **teach** the
# other. Beside CLS stands a second token, the *distillation token*, with a classifier of its own, and it learns
# what the teacher says:
#
# $$\mathcal{L} = \tfrac12\, \text{CE}(p^{class}, \text{label}) + \tfrac12\, \text{CE}(p^{distill}, \text{teacher})$$
#
# ([DeiT](https://arxiv.org/abs/2012.12877), equation 3: hard distillation). When it is asked, the answers of both
# classifiers are averaged; the teacher is no longer needed. `HubDeiTForImageClassification` computes this loss when
# it is given `teacher_logits`, as `fit` does.
#
# When does a teacher help? When it knows better than the labels. So we take a world in which many training labels are
# wrong, as in a data set that was labelled in haste. The teacher is trained on the same wrong labels as its pupil.

# %%
generator = torch.Generator().manual_seed(5)
guessed = torch.rand(len(LABELS), generator=generator) < 0.4
hasty = torch.where(guessed, torch.randint(10, LABELS.shape, generator=generator), LABELS)
wrong = float((hasty[TRAIN] != LABELS[TRAIN]).float().mean())
print(f"{wrong:.0%} of the hasty training labels are wrong; the test labels are right")


def student(distillation):
    """The same small model with and without a teacher."""
    _ = torch.manual_seed(0)
    fields = {name: getattr(config, name) for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers")}
    fields |= {
        name: getattr(config, name) for name in ("num_attention_heads", "intermediate_size", "initializer_range")
    }
    return vithub.HubDeiTForImageClassification(
        vithub.HubDeiTConfig(**fields, num_labels=10, distillation=distillation)
    )


_ = torch.manual_seed(0)
teacher, alone, taught = SmallCNN(), student("none"), student("hard")
_ = fit(teacher, steps=120, learning_rate=8e-3, labels=hasty)
_ = fit(alone, steps=300, learning_rate=3e-3, labels=hasty)
_ = fit(taught, steps=300, learning_rate=3e-3, labels=hasty, teacher=teacher)
reached = {"teacher (CNN)": accuracy(teacher), "alone": accuracy(alone), "taught": accuracy(taught)}
for name, value in reached.items():
    print(f"{name:14} right about {value:.1%} of the test scenes")
gain = 100 * (reached["taught"] - reached["alone"])
print(f"the teacher is worth {gain:+.1f} points to the same model after the same steps (one seed)")
assert gain > 0

with picture(2.3, 4.2) as (figure, colors):
    axes = figure.subplots()
    bars = axes.bar(list(reached), [100 * value for value in reached.values()], 0.6, color=colors.colors[:3])
    axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set(ylabel="right about test scenes (%)", ylim=(0, 105))

# %% [markdown]
# Chance is one in ten. A pupil that stays near it has not found the digits behind the wrong labels in so few steps. The
# teacher has, as its biases leave it little room to learn errors by heart, and its answers are cleaner labels than the
# pupil would have had: the same steps carry further. None of the pupils is anywhere near trained.
#
# With right labels there is little that a teacher could add in so short a time: that was measured on
# [CIFAR-10](../results.md), where DeiT's gain did not show in short runs. In the paper it appears after hundreds of
# epochs of ImageNet.
#
# Do the two tokens say the same? Each has its own classifier, so they can be asked one by one:

# %%
with torch.no_grad():
    outputs = taught(test_pixels)
    teacher_says = teacher(test_pixels).logits.argmax(-1)
answers = {
    "CLS": outputs.cls_logits.argmax(-1),
    "distillation": outputs.distillation_logits.argmax(-1),
    "both": outputs.logits.argmax(-1),
}
for name, answer in answers.items():
    right, as_teacher = (float((answer == other).float().mean()) for other in (test_labels, teacher_says))
    print(f"{name:13} right {right:.1%}, agrees with the teacher {as_teacher:.1%}")
cls, distill = (taught.deit(test_pixels).last_hidden_state[:, place].detach() for place in (0, 1))
print(f"cosine between the two tokens after the last layer: {functional.cosine_similarity(cls, distill).mean():.2f}")

# %% [markdown]
# For training in earnest `vithub.finetune(..., teacher=...)` does all of this, with any teacher of transformers or
# timm: see [Training](../training.md).

# %% [markdown] page=15_detr
# # DETR: queries that find objects
#
# *Needs: [the start](01_start.md) (`picture`, `cutting`, `write_digits`).*
#
# A classifier names one thing. A detector says *where* things are, however many. DETR makes of this a question of
# sets: a fixed number of **object queries** go into a decoder. Each looks at the image by *cross-attention* (queries
# from the objects, keys and values from the image), at the other queries by self-attention, and ends as one box and
# one class, or as "nothing here".
#
# No query belongs to an object beforehand. In training, predictions and true boxes are paired one to one so that the
# sum of the costs is smallest, and each query then learns from its partner:
#
# $$\hat\sigma = \arg\min_{\sigma} \sum_i \mathcal{L}_{match}\big(y_i, \hat y_{\sigma(i)}\big)$$
#
# ([DETR](https://arxiv.org/abs/2005.12872), equation 1). As each object has *one* partner, a second box for it is an
# error, and the clean-up of double boxes that other detectors need falls away.
#
# Our world for it: larger scenes with one to three digits, and only one class.

# %%
SCENE, TALL = 48, 14  # pixels of a scene and of a digit in it


def crowded_scenes(count, generator, numbers):
    """Scenes with one to three digits apart from each other, and their boxes as DETR wants them."""
    images, targets = [], []
    for _ in range(count):
        corners, wanted = [], int(torch.randint(1, 4, (), generator=generator))
        while len(corners) < wanted:
            y, x = torch.randint(SCENE - TALL + 1, (2,), generator=generator).tolist()
            if all(max(abs(y - v), abs(x - u)) >= TALL for v, u in corners):
                corners.append((y, x))
        chosen = numbers[torch.randint(len(numbers), (wanted,), generator=generator)].tolist()
        images.append(write_digits(chosen, corners, cutting(generator, SCENE, SCENE, light=0.4), TALL))
        boxes = torch.tensor([[x + TALL / 2, y + TALL / 2, TALL, TALL] for y, x in corners]) / SCENE
        targets.append({"class_labels": torch.zeros(wanted, dtype=torch.long), "boxes": boxes})
    return (torch.stack(images) - MEAN) / STD, targets


detector_config = vithub.HubDetrConfig(
    backbone_config={
        "model_type": "resnet",
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 48],
        "depths": [1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage2"],
    },
    frozen_stages=0,
    freeze_batch_norm=False,
    num_queries=8,
    d_model=64,
    encoder_layers=1,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=128,
    decoder_ffn_dim=128,
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    num_labels=1,
    id2label={0: "digit"},
    label2id={"digit": 0},
    class_cost=2.0,
    position_temperature=20.0,
    anchor_queries=True,  # queries are boxes that each layer moves
    denoising_queries=12,  # and in training further ones, which start beside true boxes
    focal_loss=True,
)
_ = torch.manual_seed(0)
detector = vithub.HubDetrForObjectDetection(detector_config)
generator = torch.Generator().manual_seed(0)
steps, batch = 350, 16
optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3, weight_decay=1e-4)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
losses = []
_ = detector.train()
for _ in range(steps):
    pixels, targets = crowded_scenes(batch, generator, TRAIN)
    loss = detector(pixels, labels=targets).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(detector.parameters(), 0.5)
    optimizer.step()
    schedule.step()
    losses.append(float(loss.detach()))
_ = detector.eval()
print(f"{sum(p.numel() for p in detector.parameters()):,} parameters; loss of the first steps ", end="")
print(f"{np.mean(losses[:20]):.1f}, of the last {np.mean(losses[-20:]):.1f}")
assert np.mean(losses[-20:]) < np.mean(losses[:20])

# %% [markdown]
# How good is it? On scenes with digits that it never saw, we take the boxes that it is surer of than not. A true box
# is found if one of them overlaps it by more than half (intersection over union).

# %%
from torchvision.ops import box_convert, box_iou

crowd_pixels, crowd_targets = crowded_scenes(100, torch.Generator().manual_seed(9), TEST)
with torch.no_grad():
    outputs = detector(crowd_pixels)
scores, boxes = outputs.logits.sigmoid()[..., 0], outputs.pred_boxes  # (B, queries), (B, queries, 4)
found = given = there = 0
for target, score, box in zip(crowd_targets, scores, boxes, strict=True):
    corners = (box_convert(part, "cxcywh", "xyxy") for part in (target["boxes"], box[score > 0.5]))
    overlap = box_iou(*corners)
    found += int((overlap > 0.5).any(1).sum())
    given += int((score > 0.5).sum())
    there += len(target["boxes"])
print(f"{there} digits are there; {given} boxes were given; {found} digits were found ({found / there:.0%})")
assert found > 0.4 * there


def draw_box(axes, box, color, **style):
    """A relative box (center x, center y, width, height) in the pixels of a scene."""
    left, top, width, height = ((box[0] - box[2] / 2), (box[1] - box[3] / 2), box[2], box[3])
    corner = (float(left) * SCENE - 0.5, float(top) * SCENE - 0.5)
    axes.add_patch(Rectangle(corner, float(width) * SCENE, float(height) * SCENE, fill=False, edgecolor=color, **style))


with picture(3.4) as (figure, colors):
    for number, axes in enumerate(figure.subplots(2, 5).flatten()):
        photo_panel(axes, as_image(crowd_pixels[number]))
        for box in crowd_targets[number]["boxes"]:
            draw_box(axes, box, "white", lw=1, linestyle=":")
        for box in boxes[number][scores[number] > 0.5]:
            draw_box(axes, box, "#E69F00", lw=1.5)
    figure.supxlabel("dotted: true boxes; orange: what DETR found", fontsize=8)

# %% [markdown]
# Where does a query look? `explain` gives the cross-attention of the three surest queries in the last layer. It need
# not lie on the object alone: a query brings its box along from the layer before, and may look around it for what it
# lacks, such as an edge or a neighbour to keep away from.

# %%
three = [number for number, target in enumerate(crowd_targets) if len(target["boxes"]) == 3]
index = max(three, key=lambda number: int((scores[number] > 0.5).sum()))
winners = scores[index].argsort(descending=True)[:3].tolist()
with picture(2.0) as (figure, colors):
    panels = figure.subplots(1, 4)
    photo_panel(panels[0], as_image(crowd_pixels[index]), "the scene")
    for axes, query in zip(panels[1:], winners, strict=True):
        explanation = vithub.explain(detector, crowd_pixels[index, None], "attention", query=query)
        photo_panel(
            axes,
            explanation.overlay(as_image(crowd_pixels[index])),
            f"query {query}, sure by {scores[index, query]:.0%}",
        )
        draw_box(axes, boxes[index, query], "#E69F00", lw=1.5)

# %% [markdown]
# And do the queries share the work? Below, the centres of all boxes that were found, one panel for each query: every
# query tends to have a region of its own (figure 7 of the paper shows the same for COCO).

# %%
with picture(2.9) as (figure, colors):
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    for query, axes in enumerate(panels.flatten()):
        sure = scores[:, query] > 0.5
        centres = boxes[sure, query, :2] * SCENE
        axes.scatter(*centres.T, s=8, color=colors.colors[0])
        axes.set(xlim=(0, SCENE), ylim=(SCENE, 0), aspect="equal", title=f"query {query}: {int(sure.sum())} boxes")
    figure.supxlabel("center of the box, x (pixels)", fontsize=8)
    figure.supylabel("y (pixels)", fontsize=8)

spread = torch.stack(
    [boxes[scores[:, q] > 0.5, q, :2].std(0).mean() for q in range(8) if (scores[:, q] > 0.5).sum() > 5]
)
together = torch.cat([boxes[scores[:, q] > 0.5, q, :2] for q in range(8)]).std(0).mean()
print(
    f"standard deviation of the centers: {SCENE * spread.mean():.1f} pixels within a query, "
    f"{SCENE * together:.1f} over all"
)

# %% [markdown]
# That was the tour. From here: [train](../training.md) a model on your own photos, [look
# inside](../looking_inside.md) it, let it [explain](../explain.md) its answers, [compare](../comparing.md) it with a
# CNN, or teach it to [detect](../detection.md).
