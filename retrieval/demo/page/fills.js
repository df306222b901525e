"use strict";

// The hole filled by every method, in its place, with a slider that blends from one to the next.

let latestFill = 0;
let filled = ""; // the question whose fills are shown
let methods = []; // {name, picture}; the hole itself comes first

const holeAsked = () => JSON.stringify([state.query, state.box, state.how]);

function hideFills() {
  latestFill += 1;
  filled = "";
  methods = [];
  $("fills").hidden = true;
  $("filling").hidden = true;
  $("layers").replaceChildren();
  delete $("frame").dataset.filled;
}

async function fill() {
  if (filled === holeAsked()) return; // only the number of neighbours has changed
  hideFills();
  if (state.how !== "hole" || isWhole(state.box)) return;
  const number = latestFill;
  $("filling").hidden = false;
  try {
    const fills = await post("/api/fill", requestBody());
    const layers = fills.map((each) => make("img", { src: each.picture, alt: "" }));
    await Promise.allSettled(layers.map((each) => each.decode()));
    if (number !== latestFill) return; // the hole has changed since
    showFills(fills, layers);
  } catch (error) {
    if (number !== latestFill) return;
    setStatus(error.message, true);
  }
  $("filling").hidden = true;
}

function showFills(fills, layers) {
  filled = holeAsked();
  methods = [{ name: "hole" }, ...fills];
  $("layers").replaceChildren(...layers);
  $("methods").replaceChildren(
    ...methods.map((each, position) => {
      const button = make("button", { type: "button" }, plain(each.name));
      button.addEventListener("click", () => setStop(position));
      return button;
    }),
  );
  $("stop").max = fills.length;
  $("fills").hidden = false;
  setStop(1);
}

// Between two methods the second is blended over the first.
function setStop(value) {
  $("stop").value = value;
  const nearest = Math.round(value);
  [...$("layers").children].forEach((layer, number) => {
    layer.style.opacity = clamp(value - number, 0, 1); // the layer of method 1 is number 0
  });
  $("frame").dataset.filled = String(value > 0);
  $("method").textContent = plain(methods[nearest].name);
  $("stop").setAttribute("aria-valuetext", plain(methods[nearest].name));
  $("picture").alt = $("picture").alt.split(";")[0] + (nearest ? `; its hole filled: ${plain(methods[nearest].name)}` : "");
  [...$("methods").children].forEach((button, number) => button.setAttribute("aria-pressed", String(number === nearest)));
}

function onSliderKey(event) {
  const at = Number($("stop").value), last = methods.length - 1;
  const to = {
    ArrowRight: Math.floor(at) + 1, ArrowUp: Math.floor(at) + 1, ArrowLeft: Math.ceil(at) - 1, ArrowDown: Math.ceil(at) - 1,
    Home: 0, End: last, PageUp: last, PageDown: 0,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  setStop(clamp(to, 0, last));
}

function listenToFills() {
  $("stop").addEventListener("input", () => setStop(Number($("stop").value)));
  $("stop").addEventListener("change", () => setStop(Math.round(Number($("stop").value))));
  $("stop").addEventListener("keydown", onSliderKey);
}
