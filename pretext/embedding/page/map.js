"use strict";

const $ = (id) => document.getElementById(id);
const content = JSON.parse($("content").textContent);
const count = content.x.length;
const canvas = $("map"), brush = canvas.getContext("2d"), shown = $("shown");
const SHAPES = ["circle", "square", "triangle", "diamond"], COLOURS = 8;
const MARGIN = 24, REACH = { mouse: 14, pen: 18, touch: 28 }, MOST_ZOOM = 60, PICTURE = 44;
const state = { by: Object.keys(content.groups)[0], chosen: new Set(), zoom: 1, x: 0.5, y: 0.5, at: -1, width: 1, height: 1, pictures: false };
const images = [];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const groups = () => content.groups[state.by];
const groupOf = (i) => groups().of[i];
const colourOf = (group) => (groups().grey[group] ? "--grey" : `--c${group % COLOURS}`);
const shapeOf = (group) => SHAPES[Math.floor(group / COLOURS) % SHAPES.length];
const isUp = (i) => !state.chosen.size || state.chosen.has(groupOf(i));
const source = (i) => `data:image/jpeg;base64,${content.pictures[i]}`;

// places: 0 to 1 on the map; pixels of the canvas
const range = (values) => values.reduce((most, each) => Math.max(most, Math.abs(each - 0.5)), 0.01) * 2;
const wide = range(content.x), high = range(content.y);
const scale = () => Math.max(20, Math.min((state.width - 2 * MARGIN) / wide, (state.height - 2 * MARGIN) / high)) * state.zoom;
const toX = (x) => (x - state.x) * scale() + state.width / 2;
const toY = (y) => (y - state.y) * scale() + state.height / 2;

function outline(shape, x, y, r) {
  brush.beginPath();
  if (shape === "circle") brush.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === "square") brush.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
  else {
    const corners = shape === "triangle" ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]];
    for (const [dx, dy] of corners) brush.lineTo(x + dx * r, y + dy * r);
    brush.closePath();
  }
}

let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
  });
}

function paint() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const palette = groups().names.map((_, group) => colour(colourOf(group)));
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(state.width * ratio);
  canvas.height = Math.round(state.height * ratio);
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  const r = Math.min(9, (count > 600 ? 3.2 : 4.5) * Math.sqrt(Math.min(state.zoom, 6)));
  const order = [...Array(count).keys()].sort((a, b) => isUp(a) - isUp(b));
  for (const i of order) {
    const x = toX(content.x[i]), y = toY(content.y[i]);
    if (x < -PICTURE || y < -PICTURE || x > state.width + PICTURE || y > state.height + PICTURE) continue;
    const group = groupOf(i);
    brush.globalAlpha = isUp(i) ? 0.85 : 0.12;
    if (state.pictures && images[i]?.complete && images[i].naturalWidth) {
      const side = PICTURE * Math.min(2, Math.sqrt(state.zoom)) / (count > 600 ? 1.6 : 1);
      const larger = Math.max(images[i].naturalWidth, images[i].naturalHeight);
      const w = side * images[i].naturalWidth / larger, h = side * images[i].naturalHeight / larger;
      brush.drawImage(images[i], x - w / 2, y - h / 2, w, h);
      brush.strokeStyle = palette[group];
      brush.lineWidth = 2;
      brush.strokeRect(x - w / 2, y - h / 2, w, h);
      continue;
    }
    outline(shapeOf(group), x, y, r);
    brush.fillStyle = palette[group];
    brush.fill();
  }
  brush.globalAlpha = 1;
  if (state.at >= 0) {
    brush.beginPath();
    brush.arc(toX(content.x[state.at]), toY(content.y[state.at]), r + 5, 0, 2 * Math.PI);
    brush.strokeStyle = colour("--ink");
    brush.lineWidth = 2.5;
    brush.stroke();
  }
}

function show(i, { aloud = true } = {}) {
  state.at = i;
  shown.hidden = i < 0;
  if (i >= 0) {
    const label = content.labels[i], caption = shown.querySelector("figcaption"), image = shown.querySelector("img");
    image.hidden = !content.pictures[i];
    if (content.pictures[i]) image.src = source(i);
    image.alt = label || content.names[i];
    caption.replaceChildren(...(label ? [make("b", {}, label)] : []), `${content.names[i]} · ${content.splits[i]}`);
    place();
    if (aloud) $("said").textContent = `${label ? `${label}, ` : ""}${content.names[i]}, ${content.splits[i]}`;
  } else $("said").textContent = "";
  draw();
}

function place() {
  if (state.at < 0) return;
  const x = toX(content.x[state.at]), y = toY(content.y[state.at]);
  const w = shown.offsetWidth, h = shown.offsetHeight;
  const left = x + 16 + w < state.width ? x + 16 : x - 16 - w;
  const top = y + 16 + h < state.height ? y + 16 : y - 16 - h;
  shown.style.left = `${Math.max(4, Math.min(state.width - w - 4, left))}px`;
  shown.style.top = `${Math.max(4, Math.min(state.height - h - 4, top))}px`;
}

function nearest(px, py, reach) {
  let best = -1, least = reach * reach;
  for (let i = 0; i < count; i++) {
    if (!isUp(i)) continue;
    const d = (toX(content.x[i]) - px) ** 2 + (toY(content.y[i]) - py) ** 2;
    if (d <= least) [best, least] = [i, d];
  }
  return best;
}

// The nearest picture within a quarter turn of the arrow's direction
function next(dx, dy) {
  if (state.at < 0) return nearest(state.width / 2, state.height / 2, Infinity);
  const x = content.x[state.at], y = content.y[state.at];
  let best = state.at, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (i === state.at || !isUp(i)) continue;
    const ux = content.x[i] - x, uy = content.y[i] - y;
    const along = ux * dx + uy * dy, across = Math.abs(ux * dy) + Math.abs(uy * dx);
    if (along <= 0 || across > along) continue;
    if (along + across < least) [best, least] = [i, along + across];
  }
  return best;
}

function look(x, y) {
  state.x = Math.min(1.1, Math.max(-0.1, x));
  state.y = Math.min(1.1, Math.max(-0.1, y));
  place();
  draw();
}

function zoomBy(factor, px = state.width / 2, py = state.height / 2) {
  const before = scale();
  state.zoom = Math.min(MOST_ZOOM, Math.max(1, state.zoom * factor));
  const change = 1 / before - 1 / scale();
  if (state.zoom === 1) look(0.5, 0.5);
  else look(state.x + (px - state.width / 2) * change, state.y + (py - state.height / 2) * change);
}

function zoomAt(factor) {
  if (state.at < 0) zoomBy(factor);
  else zoomBy(factor, toX(content.x[state.at]), toY(content.y[state.at]));
}

function whole() {
  state.zoom = 1;
  look(0.5, 0.5);
}

const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

const down = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (event) => {
  down.set(event.pointerId, at(event));
  canvas.setPointerCapture(event.pointerId);
  if (down.size === 1) moved = 0;
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = at(event);
  if (!down.size) return void (event.pointerType === "mouse" && hover(nearest(x, y, REACH.mouse)));
  const before = down.get(event.pointerId);
  if (!before) return;
  moved += Math.hypot(x - before[0], y - before[1]);
  if (down.size === 1 && moved > 6) look(state.x - (x - before[0]) / scale(), state.y - (y - before[1]) / scale());
  if (down.size === 2) {
    const other = [...down].find(([id]) => id !== event.pointerId)[1];
    const spread = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    zoomBy(spread([x, y]) / spread(before), (x + other[0]) / 2, (y + other[1]) / 2);
  }
  down.set(event.pointerId, [x, y]);
});
function hover(i) {
  if (i !== state.at) show(i, { aloud: false });
}
function up(event) {
  const one = down.size === 1;
  if (down.delete(event.pointerId) && one && moved <= 6 && event.type === "pointerup")
    show(nearest(...at(event), REACH[event.pointerType] || REACH.mouse));
}
canvas.addEventListener("pointerup", up);
canvas.addEventListener("pointercancel", up);
canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !down.size && show(-1));
canvas.addEventListener("wheel", (event) => {
  if (state.zoom === 1 && event.deltaY > 0) return; // the page scrolls
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / (event.deltaMode ? 15 : 400)), ...at(event));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (arrows[event.key]) {
    show(next(...arrows[event.key]));
    const px = toX(content.x[state.at]), py = toY(content.y[state.at]);
    if (px < 0 || py < 0 || px > state.width || py > state.height) look(content.x[state.at], content.y[state.at]);
  } else if (event.key === "+" || event.key === "=") zoomAt(1.5);
  else if (event.key === "-") zoomAt(1 / 1.5);
  else if (event.key === "0") whole();
  else if (event.key === "Escape") show(-1);
  else return;
  event.preventDefault();
});

function mark(group) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1.5 -1.5 3 3");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const drawn = { circle: "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0", square: "M-.9-.9h1.8v1.8h-1.8z", triangle: "M0-1.2 1.1.8H-1.1z", diamond: "M0-1.3 1.3 0 0 1.3-1.3 0z" };
  path.setAttribute("d", drawn[shapeOf(group)]);
  path.style.fill = `var(${colourOf(group)})`;
  svg.append(path);
  return svg;
}

function legend() {
  state.chosen.clear();
  const buttons = groups().names.map((name, k) => {
    const number = groups().counts[k].toLocaleString("en");
    const button = make("button", { type: "button", "aria-pressed": "false" }, mark(k), make("span", {}, name), make("small", {}, number));
    button.addEventListener("click", () => {
      if (!state.chosen.delete(k)) state.chosen.add(k);
      button.setAttribute("aria-pressed", String(state.chosen.has(k)));
      if (state.at >= 0 && !isUp(state.at)) show(-1);
      draw();
    });
    return button;
  });
  $("groups").replaceChildren(...buttons);
  draw();
}

function showPictures(on) {
  state.pictures = on;
  if (on && !images.length)
    for (let i = 0; i < count; i++) {
      images.push(new Image());
      images[i].onload = draw;
      if (content.pictures[i]) images[i].src = source(i);
    }
  draw();
}

for (const name of Object.keys(content.groups)) {
  const radio = make("input", { type: "radio", name: "by", value: name });
  radio.checked = name === state.by;
  radio.addEventListener("change", () => {
    state.by = name;
    legend();
  });
  $("by").append(make("label", {}, radio, ` ${name}`));
}
$("by").hidden = Object.keys(content.groups).length < 2;
$("pictures").addEventListener("change", (event) => showPictures(event.target.checked));
$("in").addEventListener("click", () => zoomAt(1.5));
$("out").addEventListener("click", () => zoomAt(1 / 1.5));
$("whole").addEventListener("click", whole);
new ResizeObserver(() => {
  [state.width, state.height] = [canvas.clientWidth, canvas.clientHeight];
  place();
  draw();
}).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
legend();
