"use strict";

const $ = (id) => document.getElementById(id);
const state = { indexes: [], query: null, start: 0, box: [0.25, 0.25, 0.5, 0.5], how: "whole", searches: 0 };
const CHOICES = 12;
const MAX_UPLOAD_MB = 20; // as on the server, which may close the connection before a longer file is sent

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function setStatus(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "error" : "";
}

async function call(path, options) {
  const response = await fetch(path, options).catch(() => {
    throw new Error("The server does not respond. Is the command still running?");
  });
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error || `Server error ${response.status}.`);
  return content;
}

const post = (path, content) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });

function showChoices() {
  const count = state.indexes[0].pictures;
  const step = Math.max(1, Math.floor(count / CHOICES));
  const buttons = [];
  for (let i = 0; i < Math.min(CHOICES, count); i++) {
    const number = (state.start + i * step) % count;
    const image = make("img", { src: `/api/picture/0/${number}`, alt: `Picture ${number}`, loading: "lazy" });
    const button = make("button", { type: "button", "data-number": number }, image);
    button.addEventListener("click", () => choose({ index: 0, number }, `/api/picture/0/${number}`));
    buttons.push(button);
  }
  $("choices").replaceChildren(...buttons);
  markChosen();
}

function markChosen() {
  const chosen = state.query?.number;
  for (const each of $("choices").children) each.setAttribute("aria-pressed", String(Number(each.dataset.number) === chosen));
}

function choose(query, url) {
  state.query = query;
  markChosen();
  $("picture").src = url;
  $("stage").hidden = false;
  search();
}

function setHow(how) {
  state.how = how;
  for (const radio of document.querySelectorAll("[name=how]")) radio.checked = radio.value === how;
  $("box").hidden = how === "whole";
  $("box").classList.toggle("hole", how === "hole");
  $("fill").disabled = how !== "hole";
  placeBox();
}

function placeBox() {
  const [x, y, w, h] = state.box;
  Object.assign($("box").style, {
    left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * w}%`, height: `${100 * h}%`,
  });
}

const requestBody = () => ({
  query: state.query,
  box: state.how === "whole" ? null : state.box,
  hidden: state.how === "hole",
  k: Math.min(50, Math.max(1, Math.round(Number($("k").value)) || 8)),
});

const querySettings = () => JSON.stringify([state.query, state.box, state.how]);

let timer = 0;
function searchSoon() {
  clearTimeout(timer);
  timer = setTimeout(search, 150);
}

async function search() {
  if (!state.query) return;
  const number = ++state.searches;
  if (state.filled !== querySettings()) $("fills").replaceChildren();
  $("results").setAttribute("aria-busy", "true");
  try {
    const results = await post("/api/search", requestBody());
    if (number !== state.searches) return; // a newer search has started
    $("results").replaceChildren(...results.map(resultView));
    const slowest = Math.max(0, ...results.map((each) => each.seconds || 0));
    setStatus(`Searched in ${slowest.toFixed(2)} s.`);
  } catch (error) {
    if (number === state.searches) setStatus(error.message, true);
  }
  $("results").removeAttribute("aria-busy");
}

function resultView(result) {
  const section = make("section", {}, make("h3", {}, result.name.replaceAll("_", " ")));
  if (result.error) {
    section.append(make("p", { class: "hint" }, result.error));
    return section;
  }
  section.append(make("div", { class: "strip" }, ...result.neighbours.map(neighbourView)));
  return section;
}

function neighbourView(found, rank) {
  const whole = found.box[0] === 0 && found.box[1] === 0 && found.box[2] >= 1 && found.box[3] >= 1;
  const description = `Neighbour ${rank + 1}${found.label ? `, ${found.label}` : ""}, similarity ${found.similarity}`;
  const shot = make("div", { class: "shot" }, make("img", { src: found.picture, alt: description }));
  if (!whole) {
    const mark = make("span");
    const [x, y, w, h] = found.box.map((share) => `${100 * share}%`);
    Object.assign(mark.style, { left: x, top: y, width: w, height: h });
    shot.append(mark);
  }
  const caption = make("figcaption", {}, `${rank + 1} · ${found.similarity.toFixed(3)} ${found.label}`);
  return make("figure", {}, shot, caption);
}

async function fill() {
  if (!state.query) return setStatus("Choose a picture first.", true);
  setStatus("Filling the hole …");
  const now = querySettings();
  try {
    const fills = await post("/api/fill", requestBody());
    if (now !== querySettings()) return; // the hole has changed since
    state.filled = now;
    const figures = fills.map((each) => {
      const image = make("img", { src: each.picture, alt: `Filled hole: ${each.name}` });
      return make("figure", {}, image, make("figcaption", {}, each.name.replaceAll("_", " ")));
    });
    $("fills").replaceChildren(make("h3", {}, "Filled hole"), make("div", { class: "strip" }, ...figures));
    setStatus("Hole filled.");
  } catch (error) {
    setStatus(error.message, true);
  }
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function onPointerDown(event) {
  if (!event.isPrimary || event.button) return;
  const frame = $("frame").getBoundingClientRect();
  const at = (e) => [
    clamp((e.clientX - frame.left) / frame.width, 0, 1), clamp((e.clientY - frame.top) / frame.height, 0, 1),
  ];
  const start = at(event);
  const before = [...state.box];
  const moving = event.target === $("box");
  if (state.how === "whole") setHow(state.indexes.some((each) => each.boxes) ? "box" : "hole");
  const move = (e) => {
    const [x, y] = at(e);
    if (moving) {
      state.box[0] = clamp(before[0] + x - start[0], 0, 1 - before[2]);
      state.box[1] = clamp(before[1] + y - start[1], 0, 1 - before[3]);
    } else {
      const w = Math.max(0.03, Math.abs(x - start[0])), h = Math.max(0.03, Math.abs(y - start[1]));
      state.box = [Math.min(x, start[0], 1 - w), Math.min(y, start[1], 1 - h), w, h];
    }
    placeBox();
  };
  const end = () => {
    $("frame").removeEventListener("pointermove", move);
    search();
  };
  $("frame").setPointerCapture(event.pointerId);
  $("frame").addEventListener("pointermove", move);
  $("frame").addEventListener("lostpointercapture", end, { once: true }); // released or cancelled
  event.preventDefault();
  $("box").focus({ preventScroll: true });
}

function onKeyDown(event) {
  const steps = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const at = event.shiftKey ? 2 : 0;
  for (const axis of [0, 1]) {
    const other = event.shiftKey ? state.box[axis] : state.box[axis + 2];
    state.box[at + axis] = clamp(state.box[at + axis] + step[axis], event.shiftKey ? 0.04 : 0, 1 - other);
  }
  placeBox();
  searchSoon();
}

async function onUpload(event) {
  const [file] = event.target.files;
  if (!file) return;
  setStatus("Uploading the picture …");
  try {
    if (file.size > MAX_UPLOAD_MB * 1e6) throw new Error(`This file is larger than ${MAX_UPLOAD_MB} MB; choose a smaller file.`);
    const query = await call("/api/upload", { method: "POST", body: file });
    choose(query, `/api/upload/${query.upload}`);
  } catch (error) {
    setStatus(error.message, true);
  }
  event.target.value = "";
}

async function start() {
  try {
    state.indexes = await call("/api/indexes");
  } catch (error) {
    return setStatus(error.message, true);
  }
  const available = { whole: state.indexes.some((e) => e.boxes), box: state.indexes.some((e) => e.boxes), hole: state.indexes.some((e) => e.holes) };
  for (const radio of document.querySelectorAll("[name=how]")) {
    radio.disabled = !available[radio.value];
    radio.addEventListener("change", () => { setHow(radio.value); search(); });
  }
  setHow(available.whole ? "whole" : "hole");
  showChoices();
  setStatus(state.indexes.map((e) => `${e.name.replaceAll("_", " ")}: ${e.regions.toLocaleString("en")} ${e.mode === "grid" ? "patches" : e.mode} of ${e.data}`).join("; "));
  $("more").addEventListener("click", () => { state.start += 1; showChoices(); });
  $("file").addEventListener("change", onUpload);
  $("k").addEventListener("change", () => { $("k").value = requestBody().k; search(); });
  $("fill").addEventListener("click", fill);
  $("frame").addEventListener("pointerdown", onPointerDown);
  $("box").addEventListener("keydown", onKeyDown);
}

// A query can be given in the URL: ?number=3&how=hole&box=0.2,0.2,0.4,0.4&fill=1
async function main() {
  await start();
  const parameters = new URLSearchParams(location.search);
  if (!parameters.has("number") || !state.indexes.length) return;
  if (parameters.has("how")) setHow(parameters.get("how"));
  const box = (parameters.get("box") || "").split(",").map(Number);
  if (box.length === 4 && box.every(Number.isFinite)) state.box = box;
  placeBox();
  const number = Number(parameters.get("number"));
  choose({ index: 0, number }, `/api/picture/0/${number}`);
  if (parameters.has("fill")) fill();
}

main();
