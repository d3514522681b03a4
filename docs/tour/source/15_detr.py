# %% [markdown]
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
import numpy as np
from matplotlib.patches import Rectangle

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
