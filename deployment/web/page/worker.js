// Runs the model beside the page, so that the page stays responsive. Everything it loads lies in this folder.
import * as ort from "./runtime/ort.wasm.min.mjs";

const MOST_PIXELS = 50_000_000;
// One thread needs no shared memory, which only pages with special headers may use.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;

let about, preprocess, compute, read;

async function download(path, report) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path} could not be loaded (status ${answer.status})`);
  const parts = [];
  let received = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    report?.(received);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load() {
  about = JSON.parse(new TextDecoder().decode(await download("page.json")));
  postMessage({ kind: "about", about });
  const options = { executionProviders: ["wasm"] };
  preprocess = await ort.InferenceSession.create(await download(about.preprocessing), options);
  const weights = await download(about.model, (received) => postMessage({ kind: "progress", received }));
  if (weights.length !== about.bytes) {
    throw new Error(`${about.model} has ${weights.length} bytes in place of ${about.bytes}`);
  }
  if (about.reading) read = await ort.InferenceSession.create(await download(about.reading), options);
  compute = await ort.InferenceSession.create(weights, options);
  postMessage({ kind: "ready" });
}

// Levels of a picture as its file has them: upright, without a change of colours, without transparency.
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, {
    imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
  });
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) throw new Error(`${width} x ${height} pixels are more than this page takes`);
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const levels = context.getImageData(0, 0, width, height).data;
    const rgb = new Uint8Array(width * height * 3);
    for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
      rgb[to] = levels[from];
      rgb[to + 1] = levels[from + 1];
      rgb[to + 2] = levels[from + 2];
    }
    return { width, height, rgb };
  } finally {
    bitmap.close();
  }
}

function probabilities(values) {
  const logits = values.map((value) => value / (about.calibration?.temperature ?? 1));
  if (about.multi_label) return Array.from(logits, (value) => 1 / (1 + Math.exp(-value)));
  const largest = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((value) => value / sum);
}

// All boxes in pixels of the picture, the highest score first.
async function objects({ logits, pred_boxes }, height, width) {
  const image_size = new ort.Tensor("float32", [height, width], [2]);
  const { boxes, scores, labels } = await read.run({ logits, pred_boxes, image_size });
  return Array.from(scores.data, (score, number) => ({
    score, label: Number(labels.data[number]), box: Array.from(boxes.data.subarray(4 * number, 4 * number + 4)),
  }));
}

async function answer(file) {
  const { width, height, rgb } = await pixelsOf(file);
  const start = performance.now();
  const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const { pixel_values } = await preprocess.run({ image });
  const outputs = await compute.run({ pixel_values });
  const found = read
    ? { objects: await objects(outputs, height, width) }
    : { scores: probabilities(outputs.logits.data) };
  return { ...found, seconds: (performance.now() - start) / 1000, width, height };
}

const text = (error) => (error instanceof Error ? error.message : String(error));
const loaded = load();
loaded.catch((error) => postMessage({ kind: "failed", reason: text(error) }));
let last = loaded.catch(() => {});

// Pictures are answered one after the other.
onmessage = ({ data: { number, file } }) => {
  last = last.then(async () => {
    try {
      await loaded;
      postMessage({ kind: "answer", number, ...(await answer(file)) });
    } catch (error) {
      postMessage({ kind: "refused", number, reason: text(error) });
    }
  });
};
