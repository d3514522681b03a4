// Elements of the page, made without HTML text: names of labels and files are text, whatever they contain.
const SVG = "http://www.w3.org/2000/svg";

const filled = (made, content, attributes) => {
  made.textContent = content;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

export const find = (id) => document.getElementById(id);
export const element = (name, content = "", attributes = {}) => filled(document.createElement(name), content, attributes);
export const shape = (name, attributes = {}, content = "") => filled(document.createElementNS(SVG, name), content, attributes);
export const percent = (score) => `${(100 * score).toFixed(1)} %`;
