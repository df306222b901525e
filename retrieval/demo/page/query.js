"use strict";

// The query picture, its box, and the pictures to choose from.

const CHOICES = 11;
const MAX_UPLOAD_MB = 20; // as on the server, which may close the connection before a longer file is sent
const LEAST = 0.04; // smallest side of a box
let firstChoice = 0;
let tileRatio = 1.5;

const pictureOf = (query) =>
  query.upload === undefined ? `/api/picture/${query.index}/${query.number}` : `/api/upload/${query.upload}`;

function drawQuery() {
  const address = pictureOf(state.query);
  if ($("picture").getAttribute("src") !== address) $("picture").src = address;
  $("picture").alt = state.query.upload === undefined ? `Picture ${state.query.number} of the index` : "Your picture";
  for (const radio of document.querySelectorAll("[name=how]")) radio.checked = radio.value === state.how;
  $("k").value = state.k;
  $("box").hidden = state.how === "whole";
  $("frame").dataset.how = state.how;
  placeBox();
  markChosen();
}

function placeBox() {
  const [x, y, w, h] = state.box;
  for (const name of ["box", "hole", "around"]) place($(name), state.box);
  $("hint").classList.toggle("top", y + h > 0.8 && y > 0.2);
  const percent = [x, y, w, h].map((share) => Math.round(100 * share));
  $("box").setAttribute("aria-label", `Marked region: left ${percent[0]} %, top ${percent[1]} %, ${percent[2]} % wide, ${percent[3]} % high`);
}

function place(element, box) {
  const [left, top, width, height] = box.map((share) => `${100 * share}%`);
  Object.assign(element.style, { left, top, width, height });
}

// The frame has the picture's shape: as wide as there is room, and not too high.
function fitFrame() {
  const ratio = $("picture").naturalWidth / $("picture").naturalHeight;
  $("frame").style.aspectRatio = ratio;
  $("frame").style.setProperty("--ratio", ratio);
}

function onPointerDown(event) {
  if (!event.isPrimary || event.button) return;
  const frame = $("frame").getBoundingClientRect();
  const at = (e) => [
    clamp((e.clientX - frame.left) / frame.width, 0, 1), clamp((e.clientY - frame.top) / frame.height, 0, 1),
  ];
  const before = [...state.box];
  const corner = [...$("box").children].indexOf(event.target); // left top, right top, right bottom, left bottom
  const moving = event.target === $("box");
  let start = at(event);
  if (corner >= 0) start = [before[0] + (corner === 0 || corner === 3 ? before[2] : 0), before[1] + (corner < 2 ? before[3] : 0)];
  const how = state.how === "whole" ? (state.indexes.some((each) => each.boxes) ? "box" : "hole") : state.how;
  let moved = false;
  const move = (e) => {
    const [x, y] = at(e);
    moved = true;
    if (moving) {
      const by = [x - start[0], y - start[1]];
      state.box = [clamp(before[0] + by[0], 0, 1 - before[2]), clamp(before[1] + by[1], 0, 1 - before[3]), before[2], before[3]];
    } else {
      const w = Math.max(LEAST, Math.abs(x - start[0])), h = Math.max(LEAST, Math.abs(y - start[1]));
      state.box = [clamp(Math.min(x, start[0]), 0, 1 - w), clamp(Math.min(y, start[1]), 0, 1 - h), w, h];
    }
    $("box").hidden = false;
    $("frame").dataset.how = how;
    hideFills();
    placeBox();
  };
  const end = () => {
    $("frame").removeEventListener("pointermove", move);
    if (!moved) return;
    $("box").focus({ preventScroll: true });
    $("hint").hidden = true;
    ask({ how });
  };
  $("frame").setPointerCapture(event.pointerId);
  $("frame").addEventListener("pointermove", move);
  $("frame").addEventListener("lostpointercapture", end, { once: true }); // released or cancelled
  event.preventDefault();
}

let timer = 0;

function onKeyDown(event) {
  const steps = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const box = [...state.box];
  for (const axis of [0, 1]) {
    if (event.shiftKey) box[axis + 2] = clamp(box[axis + 2] + step[axis], LEAST, 1 - box[axis]);
    else box[axis] = clamp(box[axis] + step[axis], 0, 1 - box[axis + 2]);
  }
  state.box = box;
  $("hint").hidden = true;
  hideFills();
  placeBox();
  clearTimeout(timer);
  timer = setTimeout(() => ask({}), 300); // one question for a series of keys
}

async function showChoices() {
  const count = state.indexes[0].pictures;
  const step = Math.max(1, Math.floor(count / CHOICES));
  const buttons = [];
  for (let i = 0; i < Math.min(CHOICES, count); i++) {
    const number = (firstChoice + i * step) % count;
    const query = { index: 0, number };
    const image = make("img", { src: pictureOf(query), alt: `Picture ${number}` });
    const button = make("button", { type: "button", "data-number": number }, image);
    button.addEventListener("click", () => ask({ query }));
    buttons.push(button);
  }
  $("choices").replaceChildren(...buttons);
  markChosen();
  await loaded(buttons);
  // Tiles are as wide as the widest of these pictures, so that neighbours have equal heights.
  const ratios = [...document.querySelectorAll("#choices img")].map((each) => each.naturalWidth / each.naturalHeight || 1);
  tileRatio = clamp(Math.max(...ratios), 1, 1.5);
  document.documentElement.style.setProperty("--tile", tileRatio);
}

function markChosen() {
  const chosen = state.query?.index === 0 ? state.query.number : null;
  for (const each of $("choices").children) each.setAttribute("aria-pressed", String(Number(each.dataset.number) === chosen));
}

async function upload(file) {
  setStatus("Uploading the picture …");
  try {
    if (file.size > MAX_UPLOAD_MB * 1e6) throw new Error(`This file is larger than ${MAX_UPLOAD_MB} MB; choose a smaller file.`);
    ask({ query: await call("/api/upload", { method: "POST", body: file }) });
  } catch (error) {
    setStatus(error.message, true);
  }
}

async function onFile(event) {
  const [file] = event.target.files;
  if (file) await upload(file);
  event.target.value = "";
}

// A picture that is pasted, or dropped anywhere on the page.
function onTransfer(event) {
  const [file] = (event.clipboardData || event.dataTransfer).files;
  if (!file) return;
  event.preventDefault();
  upload(file);
}

function listenToQuery() {
  $("picture").addEventListener("load", fitFrame);
  $("frame").addEventListener("pointerdown", onPointerDown);
  $("box").addEventListener("keydown", onKeyDown);
  $("box").addEventListener("focus", () => {
    if (!$("box").matches(":focus-visible")) return; // reached with the mouse
    $("hint").textContent = "Arrow keys move it, with Shift they resize it";
    $("hint").hidden = false;
  });
  $("more").addEventListener("click", () => { firstChoice += 1; showChoices(); });
  $("file").addEventListener("change", onFile);
  document.addEventListener("paste", onTransfer);
  document.addEventListener("drop", onTransfer);
  document.addEventListener("dragover", (event) => event.preventDefault()); // else the browser opens the file
  $("hint").hidden = false;
}
