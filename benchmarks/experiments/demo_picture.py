"""Makes demo_real_models.png and demo_several.png of docs/pictures: the page of `vithub demo` with real models.

    python benchmarks/experiments/demo_picture.py --vit vit_small_patch14 --cnn tf_efficientnet_lite0 --data flowers5 \
        --work work

A ViT and a CNN get a head on their frozen features, by the preset `linear-probe` and at 112 pixels, which fits their
temperatures too. The pictures are the two photos that come with scikit-learn, and forms of the first one; `--photos`
shows others. The first file is the page down to "Several pictures", the second one the rest. The folder of `--work`
gets the whole page in both colour schemes, at 1200 and at 360 pixels.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_sample_image

import vithub

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SLOW = 300_000  # milliseconds to wait for an answer of the page


def heads(options: argparse.Namespace) -> list[Path]:
    """Trains the two classifiers, unless they are there already."""
    folders = []
    for name, weights in (("vit", options.vit), ("cnn", options.cnn)):
        folders.append(options.work / name)
        if not folders[-1].exists():
            vithub.finetune(
                weights, options.data, output=folders[-1], preset="linear-probe", values={"model.image_size": 112}
            )
    return folders


def pictures(folder: Path) -> list[Path]:
    """Writes the dahlia, closer, darker, in grey, blurred and upside down, and the temple."""
    folder.mkdir(parents=True, exist_ok=True)
    dahlia, temple = (Image.fromarray(load_sample_image(name)) for name in ("flower.jpg", "china.jpg"))
    forms = {
        "dahlia": dahlia,
        "closer": dahlia.crop((160, 60, 480, 350)),
        "darker": ImageEnhance.Brightness(dahlia).enhance(0.4),
        "grey": ImageOps.grayscale(dahlia),
        "blurred": dahlia.filter(ImageFilter.GaussianBlur(9)),
        "upside_down": dahlia.transpose(Image.Transpose.ROTATE_180),
        "temple": temple,
    }
    for name, picture in forms.items():
        picture.save(folder / f"{name}.jpg", quality=92)
    return [folder / f"{name}.jpg" for name in forms]


def screenshots(url: str, photos: list[Path], work: Path) -> int:
    """Visits the page: asks about all pictures, looks closer at the first, and takes the page in four forms.

    Returns:
        Height of the part above "Several pictures" at 1200 pixels, in pixels.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(SLOW)
        page.goto(url)
        page.set_input_files("#pictures input[type=file]", [str(photo) for photo in photos])
        page.wait_for_selector("#cards .vithub-cards li")
        page.locator("#cards .vithub-cards button").first.click()
        for number in (0, 1):
            page.wait_for_selector(f"#model{number}-save a")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
            for width in (1200, 360):
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(1000)  # colours change over 0.2 s
                page.screenshot(path=work / f"page_{scheme}_{width}.png", full_page=True)
                if (scheme, width) == ("light", 1200):
                    several = page.get_by_role("heading", name="Several pictures").bounding_box()
                    top = page.evaluate("window.scrollY")
        browser.close()
    assert several is not None
    return int(several["y"] + top)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vit", required=True, help="folder of a ViT")
    parser.add_argument("--cnn", required=True, help="folder of a CNN, in timm's layout")
    parser.add_argument("--data", required=True, help="photos with labels, as for `vithub finetune`")
    parser.add_argument("--work", type=Path, required=True, help="folder for models, pictures and screenshots")
    parser.add_argument("--photos", type=Path, nargs="+", help="pictures to show instead")
    parser.add_argument("--output", type=Path, default=PICTURES, help="folder of the two files")
    options = parser.parse_args()
    models, photos = heads(options), options.photos or pictures(options.work / "pictures")
    command = [Path(sys.executable).with_name("vithub"), "demo", *models]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = next(found[1] for line in server.stdout if (found := re.search(r"serving on (http://\S+)", line)))
        try:
            middle = screenshots(url, photos, options.work)
        finally:
            server.terminate()
    with Image.open(options.work / "page_light_1200.png") as page:
        parts = {"demo_real_models": (0, middle - 8), "demo_several": (middle - 8, page.height)}
        for name, (top, bottom) in parts.items():
            part = page.convert("RGB").crop((0, top, page.width, bottom))
            part.quantize(256).save(options.output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
