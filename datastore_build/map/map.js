
"use strict";
// Points on a canvas. A point is a text; the texts of one entry form a ring around where the entry lies.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (name) => document.getElementById(name);
const canvas = byId("map"), tip = byId("tip"), stage = byId("stage"), query = byId("query");
const pen = canvas.getContext("2d");
const shown = data.languages.map(() => true);

const points = [];
data.entries.forEach((entry, number) => {
  const count = (entry.length - 3) / 2;
  for (let i = 0; i < count; i++) {
    points.push({ entry: number, place: i, of: count, language: entry[3 + 2 * i], text: entry[4 + 2 * i],
                  found: true, x: 0, y: 0 });
  }
});

// The view: what of the plane is at the middle of the canvas, and how many times it is enlarged.
const view = { x: 0, y: 0, zoom: 1 };
let width = 0, height = 0, radius = 1, searching = false, hovered = null, chosen = null, waiting = false;
let cells = new Map();
const CELL = 24;  // pixels

function place() {
  const scale = 0.46 * Math.min(width, height) * view.zoom, stretch = Math.max(1, Math.min(1.6, width / height));
  radius = Math.min(7, Math.max(1, Math.min(5, 140 / Math.sqrt(points.length))) * Math.pow(view.zoom, 0.35));
  cells = new Map();
  for (const point of points) {
    const entry = data.entries[point.entry];
    const ring = point.of > 1 ? 1.1 * radius * point.of / Math.PI : 0;
    const angle = 2 * Math.PI * point.place / point.of;
    point.x = width / 2 + (entry[0] - view.x) * scale * stretch + ring * Math.sin(angle);
    point.y = height / 2 - (entry[1] - view.y) * scale - ring * Math.cos(angle);
    if (!visible(point)) continue;
    const cell = Math.floor(point.x / CELL) + 100000 * Math.floor(point.y / CELL);
    if (cells.has(cell)) cells.get(cell).push(point); else cells.set(cell, [point]);
  }
}

function visible(point) {
  return shown[point.language] && point.x > -20 && point.y > -20 && point.x < width + 20 && point.y < height + 20;
}

function draw() {
  waiting = false;
  place();
  const style = getComputedStyle(document.body), ratio = window.devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  for (const found of [false, true]) {  // what was found lies above the rest
    for (let language = 0; language < data.languages.length; language++) {
      pen.fillStyle = data.languages[language].colour;
      pen.globalAlpha = found ? 0.85 : 0.08;
      pen.beginPath();
      for (const point of points) {
        if (point.language !== language || point.found !== found || !visible(point)) continue;
        if (radius < 1.5) pen.rect(point.x - radius, point.y - radius, 2 * radius, 2 * radius);
        else { pen.moveTo(point.x + radius, point.y); pen.arc(point.x, point.y, radius, 0, 2 * Math.PI); }
      }
      pen.fill();
    }
  }
  pen.globalAlpha = 1;
  for (const point of new Set([chosen, hovered])) {
    if (!point) continue;
    pen.lineWidth = 2;
    pen.strokeStyle = style.color;
    pen.beginPath();
    pen.arc(point.x, point.y, radius + 4, 0, 2 * Math.PI);
    pen.stroke();
  }
  showTip();
}

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(draw);
}

function showTip() {
  const point = hovered || chosen;
  tip.hidden = !point || !visible(point);
  if (tip.hidden) return;
  tip.textContent = point.text;
  tip.lang = data.languages[point.language].code;
  const left = point.x + 12 + tip.offsetWidth > width ? point.x - 12 - tip.offsetWidth : point.x + 12;
  const top = point.y + 12 + tip.offsetHeight > height ? point.y - 12 - tip.offsetHeight : point.y + 12;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, top) + "px";
}

function nearest(x, y, within) {
  let best = null, least = within * within;
  const column = Math.floor(x / CELL), row = Math.floor(y / CELL);
  for (let i = column - 1; i <= column + 1; i++) {
    for (let j = row - 1; j <= row + 1; j++) {
      for (const point of cells.get(i + 100000 * j) || []) {
        const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (point.found && distance <= least) { least = distance; best = point; }
      }
    }
  }
  return best;
}

function choose(point, centre) {
  chosen = point;
  hovered = null;
  const panel = byId("chosen");
  panel.replaceChildren();
  if (point) {
    const entry = data.entries[point.entry];
    if (centre) { view.x = entry[0]; view.y = entry[1]; view.zoom = Math.max(view.zoom, 3); }
    const heading = document.createElement("h2"), list = document.createElement("dl");
    heading.textContent = entry[2];
    heading.dir = "auto";
    for (let i = 3; i < entry.length; i += 2) {
      const name = document.createElement("dt"), text = document.createElement("dd");
      name.textContent = data.languages[entry[i]].code;
      name.title = data.languages[entry[i]].name;
      text.textContent = entry[i + 1];
      text.lang = data.languages[entry[i]].code;
      text.dir = "auto";
      list.append(name, text);
    }
    panel.append(heading, list);
  }
  redraw();
}

// The nearest point in a direction: far to the side counts more than far ahead.
function step(dx, dy) {
  const from = chosen || { x: width / 2, y: height / 2 };
  let best = null, least = Infinity;
  for (const point of points) {
    if (!shown[point.language] || !point.found || point === chosen) continue;
    const ahead = (point.x - from.x) * dx + (point.y - from.y) * dy;
    const aside = Math.abs((point.x - from.x) * dy) + Math.abs((point.y - from.y) * dx);
    if (chosen && ahead <= 0.5) continue;
    const cost = chosen ? ahead + 2 * aside : ahead ** 2 + aside ** 2;
    if (cost < least) { least = cost; best = point; }
  }
  if (!best) return;
  const margin = 30;
  const outside = best.x < margin || best.y < margin || best.x > width - margin || best.y > height - margin;
  choose(best, outside && view.zoom >= 3);
}

function zoom(factor, x = width / 2, y = height / 2) {
  const scale = 0.46 * Math.min(width, height), stretch = Math.max(1, Math.min(1.6, width / height));
  const before = view.zoom;
  view.zoom = Math.min(200, Math.max(0.5, before * factor));
  const shift = 1 / before - 1 / view.zoom;  // what is under the pointer stays there
  view.x += (x - width / 2) / (scale * stretch) * shift;
  view.y -= (y - height / 2) / scale * shift;
  redraw();
}

function whole() {
  Object.assign(view, { x: 0, y: 0, zoom: 1 });
  redraw();
}

const folded = (text) => text.normalize("NFKC").toLocaleLowerCase();

function search() {
  const words = folded(query.value).split(/\s+/).filter(Boolean), list = byId("results");
  searching = words.length > 0;
  list.replaceChildren();
  let count = 0;
  for (const point of points) {
    if (searching && point.folded === undefined) point.folded = folded(point.text);
    point.found = !searching || words.every((word) => point.folded.includes(word));
    if (!searching || !point.found || !shown[point.language]) continue;
    if (++count > 50) continue;
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = point.text;
    button.lang = data.languages[point.language].code;
    button.dir = "auto";
    button.addEventListener("click", () => choose(point, true));
    item.append(button);
    list.append(item);
  }
  byId("count").textContent = !searching ? ""
    : count === 0 ? "nothing found" : `${count.toLocaleString("en")} found` + (count > 50 ? ", the first 50:" : "");
  redraw();
}

function legend() {
  data.languages.forEach((language, number) => {
    const label = document.createElement("label"), box = document.createElement("input");
    const dot = document.createElement("span"), name = document.createElement("span");
    const own = document.createElement("bdi"), count = document.createElement("span");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { shown[number] = box.checked; search(); });
    dot.className = "dot";
    dot.style.background = language.colour;
    own.textContent = language.own === language.name ? "" : ` ${language.own}`;
    own.lang = language.code;
    name.append(language.name, " ", own);
    count.className = "count";
    count.textContent = language.count.toLocaleString("en");
    label.append(box, dot, name, count);
    byId("languages").append(label);
  });
}

function fit() {
  width = stage.clientWidth;
  height = stage.clientHeight;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  redraw();
}

let dragged = null;
canvas.addEventListener("pointerdown", (event) => {
  dragged = { x: event.offsetX, y: event.offsetY, far: 0 };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (dragged) {
    const dx = event.offsetX - dragged.x, dy = event.offsetY - dragged.y;
    const scale = 0.46 * Math.min(width, height) * view.zoom, stretch = Math.max(1, Math.min(1.6, width / height));
    dragged = { x: event.offsetX, y: event.offsetY, far: dragged.far + Math.abs(dx) + Math.abs(dy) };
    view.x -= dx / (scale * stretch);
    view.y += dy / scale;
    redraw();
    return;
  }
  const point = nearest(event.offsetX, event.offsetY, Math.max(10, radius + 4));
  if (point !== hovered) { hovered = point; redraw(); }
});
canvas.addEventListener("pointerup", (event) => {
  if (dragged && dragged.far < 5) choose(nearest(event.offsetX, event.offsetY, Math.max(14, radius + 4)), false);
  dragged = null;
});
canvas.addEventListener("pointercancel", () => { dragged = null; });
canvas.addEventListener("pointerleave", () => { if (hovered) { hovered = null; redraw(); } });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in steps) step(...steps[event.key]);
  else if (event.key === "+" || event.key === "=") zoom(1.4);
  else if (event.key === "-") zoom(1 / 1.4);
  else if (event.key === "0") whole();
  else if (event.key === "Escape") choose(null, false);
  else return;
  event.preventDefault();
});
byId("in").addEventListener("click", () => zoom(1.4));
byId("out").addEventListener("click", () => zoom(1 / 1.4));
byId("all").addEventListener("click", whole);
query.addEventListener("input", search);
window.addEventListener("resize", fit);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
legend();
fit();
