# %% [markdown]
# # Your own photos
#
# From a folder of photos, one folder per class, to a model that others can load: look at the data, train, see what the
# model gets wrong. Change the two names below and run it all. As it stands it needs no network and no GPU: 200 real
# handwritten digits of four classes take the place of photos, and a small network that knows nothing yet that of a
# pretrained one.

# %%
from pathlib import Path

from IPython.display import display
from PIL import Image
from sklearn.datasets import load_digits

import vithub

PHOTOS = None  # your folder, such as "photos" with photos/daisy/1.jpg; None takes the digits
MODEL = "deit-ti/4"  # from scratch; for photos "dinov2-s" or another one that `vithub models` lists

if PHOTOS is None:
    PHOTOS, digits = "own_digits", load_digits(n_class=4)
    for number, (pixels, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
        file = Path(PHOTOS) / ("zero", "one", "two", "three")[label] / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC).save(file)

# %% [markdown]
# ## Look first
#
# Damaged files, copies across splits and odd images cost more than most settings win. A fault that is an *error* must
# be mended before training, a warning is yours to judge.

# %%
report = vithub.check_data(PHOTOS)
print("usable:", report.usable)
for fault in report.faults():
    print(fault["severity"], fault["kind"], fault["count"])

# %% [markdown]
# ## Train
#
# A validation and a test split are drawn by themselves. With a pretrained model leave out `preset`, `epochs` and
# `batch_size`: the preset `finetune` is taken then, which is made for it.

# %%
run = vithub.finetune(MODEL, PHOTOS, "runs/own", preset="digits", epochs=20, batch_size=16)
for split in ("validation", "test"):
    print(f"{split}: {run.metrics[split]['accuracy']:.1%} right")

# %%
display(Image.open("runs/own/learning_curves.png").convert("P"))

# %% [markdown]
# ## What it gets wrong
#
# Rows are what an image is, columns what the model takes it for, on the test split.

# %%
print(run.metrics["confusion"])

# %% [markdown]
# ## Use it
#
# The folder `runs/own` loads here, and with transformers alone: it carries its code, its image processor and a card.

# %%
model = vithub.load("runs/own")
for file in sorted(Path(PHOTOS).glob("*/*"))[::70]:
    answer = model.predict(file, top=1)
    print(file, answer)

# %% [markdown]
# Next: [publish it](../publishing.md), give it [a teacher](teacher.md), or see [why it decides](why_and_compare.md).
