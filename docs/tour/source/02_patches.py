# %% [markdown]
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
import numpy as np
from vithub.interpretability.analysis.plots import tile

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
