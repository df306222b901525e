"use strict";

// One line of neighbours for each index, and one neighbour large.

const hiddenLines = new Set(); // names of indexes that are not shown
let opened = null; // {result, position, rank} of the neighbour that is shown large

const isWhole = ([x, y, w, h]) => x === 0 && y === 0 && w >= 1 && h >= 1;

function lineOf(result, position) {
  const index = state.indexes[position];
  const regions = `${index.regions.toLocaleString("en")} ${index.mode === "grid" ? "patches" : index.mode}`;
  const of = index.mode === "images" ? "" : ` of ${index.pictures.toLocaleString("en")} pictures`;
  const heading = make("h2", {}, make("span", {}, plain(result.name)), make("small", {}, regions + of));
  const line = make("section", { "data-name": result.name }, heading);
  line.hidden = hiddenLines.has(result.name);
  if (result.error) line.append(make("p", { class: "note" }, result.error));
  else if (!result.neighbours.length) line.append(make("p", { class: "note" }, "This index holds no other picture."));
  else line.append(make("ol", {}, ...result.neighbours.map((_, rank) => make("li", {}, tileOf({ result, position, rank })))));
  return line;
}

function tileOf(which) {
  const { result, position, rank } = which;
  const found = result.neighbours[rank];
  const description = [`Neighbour ${rank + 1}`, found.label, found.name, found.word].filter(Boolean).join(", ");
  const shot = make("button", { type: "button", class: "shot", title: "Search with this" }, viewOf(found, description));
  shot.addEventListener("click", () => follow(which));
  const large = make("button", { type: "button", class: "corner", "aria-label": `Show neighbour ${rank + 1} large`, title: "Show large" }, "⤢");
  large.addEventListener("click", () => showLarge(which));
  const word = make("span", { class: "word", title: aboutCosine(found, position) }, `${found.word} `, make("b", {}, found.similarity.toFixed(2)));
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
  bar.firstChild.style.width = `${100 * found.closeness}%`;
  const label = found.label ? [make("b", {}, plain(found.label)), " "] : [];
  const name = make("span", { class: "name", title: found.name }, ...label, found.name);
  const caption = make("figcaption", {}, name, word, bar);
  if (found.same) caption.prepend(make("span", { class: "same" }, "your picture"));
  return make("figure", {}, shot, make("span", { class: "rank", "aria-hidden": "true" }, rank + 1), large, caption);
}

const aboutCosine = (found, position) =>
  `Cosine ${found.similarity.toFixed(3)}; two regions of this index drawn at random have ${state.indexes[position].random_cosine.toFixed(3)}`;

// A picture with its region; what is around the region is dark.
function viewOf(found, description) {
  const image = make("img", { src: found.picture, alt: description });
  const view = make("span", { class: "view" }, image);
  image.addEventListener("load", () => fitView(view, image));
  if (!isWhole(found.box)) {
    view.append(make("span"));
    place(view.lastChild, found.box);
  }
  return view;
}

function fitView(view, image) {
  const ratio = image.naturalWidth / image.naturalHeight;
  view.style.aspectRatio = ratio;
  view.classList.toggle("wide", ratio > tileRatio);
}

function follow({ result, position, rank }) {
  const found = result.neighbours[rank];
  const change = { query: { index: position, number: found.number } };
  if (!isWhole(found.box)) Object.assign(change, { box: found.box, how: state.indexes[position].boxes ? "box" : "hole" });
  else if (state.how === "box") change.how = "whole";
  $("large").close();
  window.scrollTo({ top: 0 });
  ask(change);
  ($("box").hidden ? $("results") : $("box")).focus({ preventScroll: true }); // the tile is about to be replaced
}

function showLarge(which) {
  opened = which;
  const { result, position, rank } = which;
  const found = result.neighbours[rank];
  $("about").textContent = `${rank + 1} of ${result.neighbours.length} by ${plain(result.name)}`;
  $("which").replaceChildren(
    ...(found.label ? [make("b", {}, found.label), " · "] : []), found.name, make("br"), `${found.word}. ${aboutCosine(found, position)}.`,
  );
  $("big").src = found.picture;
  $("big").alt = `${found.label || "Neighbour"} in ${found.name}`;
  const mark = $("big").nextElementSibling;
  mark.hidden = isWhole(found.box);
  place(mark, found.box);
  $("crops").hidden = isWhole(found.box) && state.how !== "box"; // else the large picture shows all
  $("found").src = found.region;
  $("found").alt = "The region that was found";
  drawAsked();
  $("before").disabled = rank === 0;
  $("after").disabled = rank === result.neighbours.length - 1;
  if (!$("large").open) $("large").showModal();
}

function drawAsked() {
  const picture = $("picture"), canvas = $("asked");
  const [x, y, w, h] = state.how === "whole" ? [0, 0, 1, 1] : state.box;
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  canvas.width = Math.max(1, Math.round(w * width));
  canvas.height = Math.max(1, Math.round(h * height));
  canvas.getContext("2d").drawImage(picture, x * width, y * height, w * width, h * height, 0, 0, canvas.width, canvas.height);
}

function step(by) {
  const rank = opened.rank + by;
  if (rank >= 0 && rank < opened.result.neighbours.length) showLarge({ ...opened, rank });
}

function listenToNeighbours() {
  $("big").addEventListener("load", () => $("big").parentElement.style.setProperty("--ratio", $("big").naturalWidth / $("big").naturalHeight));
  $("close").addEventListener("click", () => $("large").close());
  $("before").addEventListener("click", () => step(-1));
  $("after").addEventListener("click", () => step(1));
  $("follow").addEventListener("click", () => follow(opened));
  $("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });
  $("large").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  $("shown").hidden = state.indexes.length < 2;
  for (const { name } of state.indexes) {
    const field = make("input", { type: "checkbox" });
    field.checked = true;
    field.addEventListener("change", () => {
      if (field.checked) hiddenLines.delete(name);
      else hiddenLines.add(name);
      for (const line of $("results").children) line.hidden = hiddenLines.has(line.dataset.name);
    });
    $("shown").append(make("label", {}, field, ` ${plain(name)}`));
  }
}
