# %% [markdown]
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
_ = fit(alone, steps=800, labels=hasty)
_ = fit(taught, steps=800, labels=hasty, teacher=teacher)
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
# Chance is one in ten. The teacher finds the digits behind the wrong labels in a few steps, as its biases leave it
# little room to learn errors by heart. Its answers are cleaner labels than the pupil would have had: the same steps
# carry further. Neither pupil is trained to the end; alone it would go on to learn, if later.
#
# With right labels there is far less that a teacher could add in so short a time:
# [measured on CIFAR-10](../results.md), it helps a little or not at all. In the paper the gain appears after hundreds
# of epochs of ImageNet.
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
