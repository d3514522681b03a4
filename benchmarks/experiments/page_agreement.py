"""The web page of `vithub export --web` against transformers' `pipeline`, in headless Chromium; transformers.js beside.

    python tests/web_packages.py web-packages
    python benchmarks/experiments/page_agreement.py --model runs/flowers --data flowers5 --web-packages web-packages \
        --output benchmarks/results/page_agreement.json

Both read the same exported folder and classify the photos of the validation split, as JPEG files. For each: the number
of photos with the most likely class of `pipeline`, the largest difference of a probability, and the seconds of a photo.
"""

import argparse
import functools
import http.server
import io
import json
import shutil
import statistics
import tempfile
import threading
from pathlib import Path
from typing import Any

import PIL.Image
from datasets import Image, load_dataset
from playwright.sync_api import Browser, sync_playwright
from transformers import pipeline

import vithub

TRANSFORMERS_JS = """<!DOCTYPE html><title>transformers.js</title><link rel="icon" href="data:,">
<body><input type="file" multiple><script type="module">
import { env, pipeline, RawImage } from "./transformers.min.js";
Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/" });
Object.assign(env.backends.onnx.wasm, { wasmPaths: location.origin + "/", numThreads: 1 });
const classify = await pipeline("image-classification", "page", { device: "wasm" });
document.querySelector("input").onchange = async (event) => {
  const found = [];
  for (const file of event.target.files) {
    const begun = performance.now();
    const scores = await classify(await RawImage.fromBlob(file), { top_k: null });
    found.push({ name: file.name, seconds: (performance.now() - begun) / 1000, scores });
  }
  document.body.dataset.answers = JSON.stringify(found);
};
document.body.dataset.state = "ready";
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def visited(browser: Browser, folder: Path, files: list[Path], input_: str, done: str, read: str) -> Any:
    """Serves a folder, gives its page the files, waits for the selector `done`, and returns what `read` gives there."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    try:
        page.set_default_timeout(1_800_000)
        page.goto(f"http://127.0.0.1:{server.server_port}")
        page.locator("body[data-state=ready]").wait_for()
        page.set_input_files(input_, [str(file) for file in files])
        page.locator(done).wait_for()
        return page.evaluate(read)
    finally:
        page.close()
        server.shutdown()
        server.server_close()


def of_the_page(browser: Browser, folder: Path, files: list[Path], labels: list[str]) -> list[dict[str, Any]]:
    places = "#answers > li:is([data-label], [data-refused])"
    shown = visited(
        browser, folder, files, "#pictures", f":nth-match({places}, {len(files)})",
        f"[...document.querySelectorAll({json.dumps(places)})].map(place => ({{...place.dataset}}))",
    )  # fmt: skip
    return [
        {"name": one["name"], "seconds": float(one["seconds"]),
         "scores": dict(zip(labels, json.loads(one["scores"]), strict=True))}
        for one in shown
    ]  # fmt: skip


def of_transformers_js(browser: Browser, folder: Path, files: list[Path], packages: Path) -> list[dict[str, Any]]:
    root = Path(tempfile.mkdtemp(dir=folder.parent))
    (root / "page").symlink_to(folder)
    (root / "index.html").write_text(TRANSFORMERS_JS)
    for file in packages.iterdir():
        (root / file.name).symlink_to(file.resolve())
    answers = visited(browser, root, files, "input", "body[data-answers]", "JSON.parse(document.body.dataset.answers)")
    return [{**one, "scores": {entry["label"]: entry["score"] for entry in one["scores"]}} for one in answers]


def compared(answers: list[dict[str, Any]], wanted: dict[str, dict[str, float]]) -> dict[str, Any]:
    same, differences = 0, []
    for answer in answers:
        scores = wanted[answer["name"]]
        same += max(answer["scores"], key=answer["scores"].get) == max(scores, key=scores.__getitem__)
        differences += [abs(score - scores[label]) for label, score in answer["scores"].items()]
    return {
        "photos": len(answers),
        "same_class": same,
        "largest_difference": max(differences),
        "median_seconds": statistics.median(answer["seconds"] for answer in answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of an image classifier")
    parser.add_argument("--data", required=True, help="data set of image files with a validation split")
    parser.add_argument("--web-packages", type=Path, required=True, help="folder filled by tests/web_packages.py")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    photos = load_dataset(options.data, split="validation").cast_column("image", Image(decode=False))
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder, pictures = Path(temporary, "page"), Path(temporary, "pictures")
        pictures.mkdir()
        files, wanted = [], {}
        classify = pipeline("image-classification", model=options.model, top_k=None)
        for number, row in enumerate(photos):
            files.append(pictures / f"{number:04}.jpg")
            files[-1].write_bytes(row["image"]["bytes"])
            found = classify(PIL.Image.open(io.BytesIO(row["image"]["bytes"])))
            wanted[files[-1].name] = {entry["label"]: entry["score"] for entry in found}
        vithub.export(options.model, "onnx", web=True, web_runtime=options.web_packages, output=folder)
        about = json.loads((folder / "page.json").read_text())  # without a temperature, which `pipeline` does not know
        about["calibration"] = {"temperature": None, "why_not": "left out"}
        (folder / "page.json").write_text(json.dumps(about))
        names = json.loads((folder / "config.json").read_text())["id2label"]
        labels = [names[str(number)] for number in range(len(names))]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        result = {
            "model_megabytes": (folder / "onnx" / "model.onnx").stat().st_size / 1e6,
            "browser": browser.version,
            "page": compared(of_the_page(browser, folder, files, labels), wanted),
            "transformers.js": compared(of_transformers_js(browser, folder, files, options.web_packages), wanted),
        }
        browser.close()
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
