# %% [markdown]
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
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from IPython.display import display
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch.nn import functional
from vithub.interpretability.analysis.plots import PAGE, paper_figure

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
kept = fit(model, steps=700, keep=(0, 350))
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
