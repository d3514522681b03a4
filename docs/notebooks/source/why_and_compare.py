# %% [markdown]
# # Why, and compared with what
#
# Two networks that learned the same task, a ViT and a CNN: where does each look, and which of the two bears that a
# picture is moved? On 200 handwritten digits, so that it runs in seconds; with photos put your own runs in.

# %%
import tempfile
from pathlib import Path

import torch
from IPython.display import display
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification
from vithub.data.image_processing import build_image_processor
from vithub.hub.any_model import load_any_model

import vithub

DATA, names = "compared_digits", ("zero", "one", "two", "three")
digits = load_digits(n_class=4)
for number, (pixels, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
    file = Path(DATA) / names[label] / f"{number:03}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC).save(file)

_ = torch.manual_seed(0)
ResNetForImageClassification(
    ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
).save_pretrained("blank_cnn")
build_image_processor((32, 32)).save_pretrained("blank_cnn")
vit = vithub.finetune("deit-ti/4", DATA, "runs/vit", preset="digits", epochs=20, batch_size=16)
quick = {"training.layer_decay": 1.0}
cnn = vithub.finetune("blank_cnn", DATA, "runs/cnn", epochs=6, batch_size=16, lr=2e-3, values=quick)
for name, run in {"vit": vit, "cnn": cnn}.items():
    print(f"{name}: {run.metrics['test']['accuracy']:.1%} right")

# %% [markdown]
# ## Why
#
# `explain` works for both, with the method that suits each: what flows through attention for the ViT, Grad-CAM for the
# CNN.

# %%
file = sorted(Path(DATA).glob("three/*"))[0]
with tempfile.TemporaryDirectory() as folder:
    for name in ("vit", "cnn"):
        model, processor = load_any_model(f"runs/{name}")
        pixels = processor(Image.open(file).convert("RGB"), return_tensors="pt").pixel_values
        vithub.explain(model, pixels).save(f"{folder}/{name}.png")
        drawn = Image.open(f"{folder}/{name}.png").convert("RGB")
        drawn.thumbnail((600, 600), Image.Resampling.LANCZOS)
        display(drawn.quantize(colors=128, dither=Image.Dither.NONE))

# %% [markdown]
# A map is no proof. `vithub.faithfulness` measures whether what it marks mattered, against a random map.

# %% [markdown]
# ## Compared
#
# `compare` measures; here whether the answer stays when the picture is moved. Its verdict is in words, its figures have
# intervals, and `report.html` has all of it.

# %%
comparison = vithub.compare(
    ["vit=runs/vit", "cnn=runs/cnn"], DATA, "comparison", sections=["translation"], quick=True, images=8
)
for line in comparison.verdict:
    print("-", line)

# %% [markdown]
# More: [the methods](../explain.md#the-methods), [what they are worth](../faithfulness.md), [all sections of a
# comparison](../comparing.md#sections).
