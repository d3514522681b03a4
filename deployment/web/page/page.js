const find = (id) => document.getElementById(id);
const SHOWN = 5;
const waiting = new Map(); // number of a picture -> its place on the page
let about, count = 0;

const element = (name, content = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = content; // names of labels and files are text, whatever they contain
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const percent = (score) => `${(100 * score).toFixed(1)} %`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => receive[data.kind](data);
worker.onerror = (event) => receive.failed({ reason: event.message || "the runtime could not be loaded" });

const receive = {
  about({ about: found }) {
    about = found;
    document.title = `${about.title}: image classifier`;
    find("title").textContent = about.title;
    const sizes = `Downloads: model ${megabytes(about.bytes)} (${about.precision}), runtime ${megabytes(about.runtime_bytes)}.`;
    find("about").textContent = `${about.labels.length} classes. ${sizes}`;
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
  answer({ number, scores, seconds, width, height }) {
    const place = taken(number);
    if (!place) return;
    const order = scores.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
    const rows = element("tbody");
    for (const index of order.slice(0, SHOWN)) {
      const row = element("tr");
      const bar = element("meter", "", { min: 0, max: 1, value: scores[index], "aria-hidden": "true" });
      const shown = element("td");
      shown.append(bar);
      row.append(element("th", about.labels[index], { scope: "row" }), shown, element("td", percent(scores[index])));
      rows.append(row);
    }
    const table = element("table", "", { "aria-label": `Classes of ${place.dataset.name}, most likely first` });
    table.append(rows);
    const time = `${width} x ${height} pixels, ${seconds.toFixed(2)} s`;
    place.querySelector("p").replaceWith(table, element("p", time, { class: "time" }));
    Object.assign(place.dataset, { label: about.labels[order[0]], scores: JSON.stringify(scores), seconds });
    say(`${place.dataset.name}: ${about.labels[order[0]]}, ${percent(scores[order[0]])}`);
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
  if (files.length) find("status").textContent = `${files.length} ${files.length === 1 ? "picture" : "pictures"} to go.`;
}

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
