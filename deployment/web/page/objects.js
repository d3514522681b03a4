// Answer of a detector: boxes on the picture, and a table that says the same.
import { element, percent, shape } from "./elements.js";

const found = new WeakMap(); // place on the page -> objects, highest score first

export function showObjects(place, labels, { objects, width, height }, least) {
  const picture = element("div", "", { class: "picture" });
  const image = place.querySelector("img");
  image.replaceWith(picture);
  // what is drawn is in the table too
  picture.append(image, shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }));
  place.querySelector("p").replaceWith(element("div", "", { class: "objects" }));
  found.set(place, objects.map(({ score, label, box }) => ({ score, label: labels[label], hue: hue(label), box })));
  place.dataset.objects = JSON.stringify(found.get(place));
  return drawObjects(place, least);
}

// Shows the objects of at least a score; returns their number by label, as text.
export function drawObjects(place, least) {
  const drawing = place.querySelector("svg");
  const size = Math.max(drawing.viewBox.baseVal.width, drawing.viewBox.baseVal.height) / 28;
  const shown = (found.get(place) ?? []).filter(({ score }) => score >= least);
  drawing.replaceChildren(...shown.toReversed().flatMap((object) => drawn(object, size)));
  place.querySelector(".objects").replaceChildren(shown.length ? table(place, shown) : nothing(least));
  const counts = new Map();
  for (const { label } of shown) counts.set(label, (counts.get(label) ?? 0) + 1);
  return counts.size ? Array.from(counts, ([label, count]) => `${count} ${label}`).join(", ") : "no object";
}

const hue = (label) => (47 + 137 * label) % 360;
const nothing = (least) => element("p", `No object has a score of at least ${percent(least)}.`);

function drawn({ score, label, hue, box: [left, top, right, bottom] }, size) {
  const colour = `hsl(${hue} 90% 60%)`;
  const frame = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
  const place = { x: Math.max(0, left) + size / 4, y: Math.max(top - size / 4, size), "font-size": size };
  return [
    shape("rect", { ...frame, class: "under" }),
    shape("rect", { ...frame, class: "box", stroke: colour }),
    shape("text", { ...place, fill: colour, "stroke-width": size / 5 }, `${label} ${percent(score)}`),
  ];
}

function table(place, shown) {
  const made = element("table", "", { "aria-label": `Objects of ${place.dataset.name}, highest score first` });
  const head = element("tr");
  for (const name of ["Object", "Score", "Left, top, right, bottom"]) head.append(element("th", name, { scope: "col" }));
  const rows = shown.map(({ score, label, box }) => {
    const row = element("tr");
    const sides = box.map((side) => side.toFixed(0)).join(", ");
    row.append(element("th", label, { scope: "row" }), element("td", percent(score)), element("td", sides));
    return row;
  });
  const top = element("thead");
  const body = element("tbody");
  top.append(head);
  body.append(...rows);
  made.append(top, body);
  return made;
}
