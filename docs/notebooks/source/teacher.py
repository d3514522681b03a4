# %% [markdown]
# # A teacher
#
# A DeiT learns from the labels and from what another network, its teacher, says of the same images
# ([DeiT](https://arxiv.org/abs/2012.12877), section 4). Here a small CNN teaches a small ViT, on 200 handwritten
# digits, and beside it the same ViT learns alone.

# %%
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification
from vithub.data.image_processing import build_image_processor

import vithub

DATA, names = "teacher_digits", ("zero", "one", "two", "three")
digits = load_digits(n_class=4)
for number, (pixels, label) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
    file = Path(DATA) / names[label] / f"{number:03}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC).save(file)

# %% [markdown]
# ## The teacher
#
# Any image classifier that knows the same classes by name will do: one of transformers, of timm, or of this package.
# This one is a ResNet of a few layers that learns now; with photos, finetune a pretrained one.

# %%
_ = torch.manual_seed(0)
blank = ResNetForImageClassification(
    ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64],
        depths=[1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
)
blank.save_pretrained("blank_resnet")
build_image_processor((32, 32)).save_pretrained("blank_resnet")
quick = {"training.layer_decay": 1.0}
teacher = vithub.finetune("blank_resnet", DATA, "runs/teacher", epochs=6, batch_size=16, lr=2e-3, values=quick)
print(f"the teacher is right on {teacher.metrics['test']['accuracy']:.1%} of the test images")

# %% [markdown]
# ## The student, alone and taught
#
# The same network, recipe and seed. The teacher sees each image as the student does, augmented and mixed; its decision
# is a second label, for the distillation token.

# %%
recipe = {"preset": "digits", "epochs": 20, "batch_size": 16}
for name, source in {"alone": None, "taught": "runs/teacher"}.items():
    run = vithub.finetune("deit-ti/4", DATA, f"runs/{name}", teacher=source, **recipe)
    low, high = run.metrics["intervals"]["accuracy"]
    print(f"{name}: {run.metrics['test']['accuracy']:.1%} right, 95 % interval {low:.1%} to {high:.1%}")

# %% [markdown]
# So few test images tell little, which the intervals say; [measured results](../results.md#with-a-teacher-on-cifar-10)
# has three seeds on more images. How the teacher's word is weighed is in [training](../training.md#a-teacher), and what
# happens inside in [the tour](../tour/14_deit.md).
