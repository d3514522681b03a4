import { showClasses } from "./classes.js";
import { element, find } from "./elements.js";
import { drawObjects, showObjects } from "./objects.js";

const waiting = new Map(); // number of a picture -> its place on the page
let about, count = 0;

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => receive[data.kind](data);
worker.onerror = (event) => receive.failed({ reason: event.message || "the runtime could not be loaded" });

function probabilities() {
  if (about.reading) return "";
  const { temperature, images, fitted_on, why_not } = about.calibration;
  if (!temperature) return `The probabilities are not calibrated: ${why_not}. `;
  const where = `fitted on the ${images} images of the ${fitted_on} split`;
  return `The probabilities are calibrated: temperature ${temperature.toFixed(2)}, ${where}. `;
}

const receive = {
  about({ about: found }) {
    about = found;
    document.title = `${about.title}: ${about.reading ? "object detector" : "image classifier"}`;
    document.body.dataset.task = about.reading ? "detection" : "classification";
    find("title").textContent = about.title;
    const sizes = `Downloads: model ${megabytes(about.bytes)} (${about.precision}), runtime ${megabytes(about.runtime_bytes)}.`;
    find("about").textContent = `${about.labels.length} classes. ${probabilities()}${sizes}`;
    find("progress-label").textContent = `Loading the model, ${megabytes(about.bytes)}`;
  },
  progress({ received }) {
    find("progress").value = received / about.bytes;
  },
  ready() {
    find("loading").hidden = true;
    find("pictures").disabled = false;
    find("status").textContent = "The model is ready.";
    document.body.dataset.state = "ready";
  },
  failed({ reason }) {
    find("loading").hidden = true;
    find("pictures").disabled = true;
    find("problem").textContent = `The model could not be loaded: ${reason}`;
    document.body.dataset.state = "failed";
  },
  answer({ number, ...answer }) {
    const place = taken(number);
    if (!place) return;
    const { width, height, seconds } = answer;
    place.append(element("p", `${width} x ${height} pixels, ${seconds.toFixed(2)} s`, { class: "time" }));
    place.dataset.seconds = seconds;
    const said = about.reading
      ? showObjects(place, about.labels, answer, least())
      : showClasses(place, about.labels, answer);
    say(`${place.dataset.name}: ${said}`);
  },
  refused({ number, reason }) {
    const place = taken(number);
    if (!place) return;
    place.querySelector("p").textContent = `This file could not be read as a picture: ${reason}`;
    place.dataset.refused = reason;
    say(`${place.dataset.name} could not be read as a picture`);
  },
};

function taken(number) {
  const place = waiting.get(number);
  waiting.delete(number);
  return place;
}

function say(text) {
  find("status").textContent = waiting.size ? `${text}. ${waiting.size} to go.` : `${text}.`;
}

function show(files) {
  for (const file of files) {
    const number = count++;
    const place = element("li");
    place.dataset.name = file.name;
    const picture = element("img", "", { alt: "" });
    picture.src = URL.createObjectURL(file);
    place.append(picture, element("h3", file.name), element("p", "Waiting"));
    find("answers").append(place);
    waiting.set(number, place);
    worker.postMessage({ number, file });
  }
  const any = find("answers").childElementCount > 0;
  find("answers-title").hidden = !any;
  find("clear").hidden = !any;
  find("least").hidden = !any || !about.reading;
  if (files.length) find("status").textContent = `${files.length} ${files.length === 1 ? "picture" : "pictures"} to go.`;
}

const least = () => find("threshold").value / 100;

function showLeast() {
  const text = `${find("threshold").value} %`;
  find("threshold-shown").textContent = text;
  find("threshold").setAttribute("aria-valuetext", text);
  const places = [...find("answers").querySelectorAll("li[data-objects]")];
  return places.map((place) => `${place.dataset.name}: ${drawObjects(place, least())}`);
}

showLeast();
find("threshold").addEventListener("input", showLeast);
find("threshold").addEventListener("change", () => {
  find("status").textContent = `${showLeast().join(". ")}.`;
});
find("pictures").addEventListener("change", ({ target }) => {
  show([...target.files]);
  target.value = ""; // the same file can be chosen again
});
find("clear").addEventListener("click", () => {
  for (const picture of find("answers").querySelectorAll("img")) URL.revokeObjectURL(picture.src);
  waiting.clear();
  find("answers").replaceChildren();
  show([]);
  find("status").textContent = "All pictures were removed.";
  find("pictures").focus();
});
const drop = find("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  // on the whole page, so that a picture that misses the frame is not opened in its place
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !find("pictures").disabled) show([...event.dataTransfer.files]);
  });
}
