# %% [markdown]
# # The CLS token
#
# *Needs: [the start](01_start.md) (`picture`, `model`, `untrained`).*
#
# There is one token for each patch, and one answer for the image. Who gives it? ViT takes an idea from language
# models: a further token $x_{class}$ is put in front. It is a learned vector, **the same for every image**. It
# belongs to no patch and has nothing to say at first, so that all it can do is to collect from the others what the
# answer needs ([ViT](https://arxiv.org/abs/2010.11929), section 3.1).

# %%
import numpy as np
from vithub.interpretability.analysis.plots import MARKERS

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
