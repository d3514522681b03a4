# %% [markdown]
# # Boxes
#
# A detector from photos with boxes: check them, train, find. The data here is drawn, 60 pictures with discs ("cell")
# and bars ("rod") in YOLO's format, so that it trains in seconds without a network. COCO and Pascal VOC are found as
# well.

# %%
from pathlib import Path

import numpy as np
from IPython.display import display
from PIL import Image, ImageDraw

import vithub

DATA = "drawn_cells"  # your data set: a folder of YOLO, Pascal VOC or COCO, or a COCO file

draws = np.random.default_rng(0)
for part in ("images", "labels"):
    (Path(DATA) / part).mkdir(parents=True, exist_ok=True)
(Path(DATA) / "data.yaml").write_text("train: images\nnames: [cell, rod]\n")
for number in range(60):
    picture, lines = Image.fromarray(draws.integers(60, 110, (64, 64, 3), dtype=np.uint8)), []
    for kind in (0, 1)[: 1 + number % 2]:
        width, height = ((20, 20), (28, 12))[kind]
        left, top = int(draws.integers(0, 64 - width)), int(draws.integers(0, 64 - height))
        pen = ImageDraw.Draw(picture)
        (pen.ellipse, pen.rectangle)[kind](
            (left, top, left + width, top + height), fill=((230, 60, 60), (60, 60, 230))[kind]
        )
        lines.append(f"{kind} {(left + width / 2) / 64} {(top + height / 2) / 64} {width / 64} {height / 64}")
    picture.save(Path(DATA) / "images" / f"{number:02}.png")
    (Path(DATA) / "labels" / f"{number:02}.txt").write_text("\n".join(lines))

# %% [markdown]
# ## Check
#
# Axes that are swapped, boxes in another format than the files say, ids that count from 1: all of it is found before
# the training, which would not complain.

# %%
report = vithub.check_data(DATA)
print("usable:", report.usable)
for fault in report.faults():
    print(fault["severity"], fault["kind"], fault["count"])

# %% [markdown]
# ## Train
#
# The preset `detr-small-data` is for a few hundred photos. With photos, give it a pretrained backbone in place of the
# sizes below: `values={"model.backbone": "dinov2-s"}`.

# %%
resnet = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 2, 1, 2],
    "layer_type": "basic", "out_features": ["stage2"],
}  # fmt: skip
tiny = {
    "backbone_config": resnet, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 8, "frozen_stages": 0,
    "freeze_batch_norm": False, "denoising_queries": 8,
}  # fmt: skip
values = {
    "model.backbone_stride": None, "model.image_size": 64, "data.workers": 0, "boxes.sides": (800,),
    "training.backbone_lr": 4e-3, "training.clip_norm": 5.0, "training.warmup": 0,
    **{f"model.fields.{name}": value for name, value in tiny.items()},
}  # fmt: skip
run = vithub.finetune(
    data=DATA, output="runs/boxes", preset="detr-small-data", epochs=50, batch_size=8, lr=4e-3, values=values
)
print(f"mAP at IoU 0.5: {run.metrics['test']['map_50']:.1%}")

# %% [markdown]
# ## Find
#
# Each box comes with its class and score, in pixels of the picture. `output=` draws them.

# %%
found = vithub.predict(
    "runs/boxes", [f"{DATA}/images/{number:02}.png" for number in (1, 3)], threshold=0.3, output="found"
)
for picture in found:
    print(picture["image"], *(f"{one['label']} {one['score']:.2f}" for one in picture["predictions"]))
drawn = [Image.open(file).convert("RGB").resize((256, 256)) for file in sorted(Path("found").glob("*.png"))]
side_by_side = Image.new("RGB", (256 * len(drawn), 256))
for place, one in enumerate(drawn):
    side_by_side.paste(one, (256 * place, 0))
display(side_by_side.quantize(colors=64))

# %% [markdown]
# Next: [all of detection](../detection.md), small objects in [large pictures](../detection.md#large-pictures), or the
# detector [on a web page](../howto/browser.md).
