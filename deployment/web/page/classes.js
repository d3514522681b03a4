// Answer of a classifier: a table of the likeliest classes.
import { element, percent } from "./elements.js";

const SHOWN = 5;

export function showClasses(place, labels, { scores }) {
  const order = scores.map((_, index) => index).sort((one, other) => scores[other] - scores[one]);
  const rows = element("tbody");
  for (const index of order.slice(0, SHOWN)) {
    const row = element("tr");
    const bar = element("meter", "", { min: 0, max: 1, value: scores[index], "aria-hidden": "true" });
    const shown = element("td");
    shown.append(bar);
    row.append(element("th", labels[index], { scope: "row" }), shown, element("td", percent(scores[index])));
    rows.append(row);
  }
  const table = element("table", "", { "aria-label": `Classes of ${place.dataset.name}, most likely first` });
  table.append(rows);
  place.querySelector("p").replaceWith(table);
  Object.assign(place.dataset, { label: labels[order[0]], scores: JSON.stringify(scores) });
  return `${labels[order[0]]}, ${percent(scores[order[0]])}`;
}
