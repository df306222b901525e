"use strict";

// The question, its address, and the search. The other scripts draw: query.js, neighbours.js, fills.js.

const $ = (id) => document.getElementById(id);
const MAX_NEIGHBOURS = 50;
const CENTRE = [0.25, 0.25, 0.5, 0.5];
const state = {
  indexes: [],
  query: null, // {index, number} or {upload}
  how: "whole", // whole, box or hole
  box: CENTRE, // left, top, width, height as shares of the picture
  k: 8,
  searches: 0,
  results: [], // what is shown: one line for each index
  example: 0,
};

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const plain = (name) => name.replaceAll("_", " ");

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

// The address holds the question: ?number=3&how=hole&box=0.2,0.2,0.4,0.4&k=8, with &index=1 for another index's picture.
function addressOf({ query, how, box, k }) {
  const parts = new URLSearchParams();
  if (query.upload !== undefined) parts.set("upload", query.upload);
  else {
    if (query.index) parts.set("index", query.index);
    parts.set("number", query.number);
  }
  parts.set("how", how);
  if (how !== "whole") parts.set("box", box.map((share) => Number(share.toFixed(4))).join(","));
  parts.set("k", k);
  return `?${parts}`.replaceAll("%2C", ",");
}

function questionOf(address) {
  const parts = new URLSearchParams(address);
  const asked = {};
  if (parts.has("upload")) asked.query = { upload: parts.get("upload") };
  else if (parts.has("number")) asked.query = { index: Number(parts.get("index") || 0), number: Number(parts.get("number")) };
  else return null;
  asked.how = state.indexes.some((each) => canAnswer(each, parts.get("how"))) ? parts.get("how") : defaultHow();
  const box = (parts.get("box") || "").split(",").map(Number);
  if (box.length === 4 && box.every(Number.isFinite)) asked.box = box;
  asked.k = neighbourCount(parts.get("k"));
  return asked;
}

const canAnswer = (index, how) => ({ whole: index.boxes, box: index.boxes, hole: index.holes })[how] === true;
const defaultHow = () => (state.indexes.some((each) => each.boxes) ? "whole" : "hole");
const neighbourCount = (value) => clamp(Math.round(Number(value)) || 8, 1, MAX_NEIGHBOURS);

const requestBody = () => ({
  query: state.query,
  box: state.how === "whole" ? null : state.box,
  hidden: state.how === "hole",
  k: state.k,
});

// Ask a question: what changes of the one before, and what becomes of the browser's history: "push", "replace" or "keep".
function ask(change, history = "push") {
  Object.assign(state, change);
  const address = addressOf(state);
  if (history === "push" && address !== location.search) window.history.pushState(null, "", address);
  if (history === "replace") window.history.replaceState(null, "", address);
  drawQuery();
  return Promise.all([search(), fill()]);
}

async function search() {
  const number = ++state.searches;
  $("results").setAttribute("aria-busy", "true");
  try {
    const results = await post("/api/search", requestBody());
    const lines = results.map(lineOf);
    await loaded(lines);
    if (number !== state.searches) return; // a newer search has started
    $("results").replaceChildren(...lines);
    const slowest = Math.max(0, ...results.map((each) => each.seconds || 0));
    state.results = results;
    setStatus(`Searched in ${slowest.toFixed(2)} s.`);
    $("status").append(make("span", { class: "unseen" }, ` ${spokenOf(results)}`));
  } catch (error) {
    if (number !== state.searches) return;
    $("results").replaceChildren();
    state.results = [];
    setStatus(error.message, true);
  }
  $("results").removeAttribute("aria-busy");
}

// What a screen reader says of the lines: how many neighbours each has, and the nearest one.
function spokenOf(results) {
  const where = state.how === "whole" ? [] : [`${$("box").getAttribute("aria-label")}.`];
  const lines = results.map(({ name, error, neighbours }) => {
    if (error) return `${plain(name)}: ${error}`;
    if (!neighbours.length) return `${plain(name)}: no neighbours.`;
    const [first] = neighbours;
    const nearest = [first.label && plain(first.label), first.name, first.word].filter(Boolean).join(", ");
    return `${plain(name)}: ${neighbours.length} neighbours, the nearest is ${nearest}.`;
  });
  return [...where, ...lines].join(" ");
}

// The neighbours of all lines that are shown, as a table; a text that begins like a formula gets an apostrophe.
function tableOf(results) {
  const quoted = (text) => `"${text.replace(/^[=+\-@]/, "'$&").replaceAll('"', '""')}"`;
  const cell = (value) => (typeof value === "number" ? String(value) : quoted(value));
  const rows = [["encoder", "rank", "picture", "number", "class", "cosine", "similarity", "left", "top", "width", "height"]];
  for (const { name, neighbours = [] } of results.filter((each) => !hiddenLines.has(each.name))) {
    neighbours.forEach((each, rank) => {
      const box = each.box.map((share) => Number(share.toFixed(4)));
      rows.push([plain(name), rank + 1, each.name, each.number, each.label, each.similarity, each.word, ...box]);
    });
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function saveTable() {
  const link = make("a", { download: "neighbours.csv" });
  link.href = URL.createObjectURL(new Blob(["\ufeff", tableOf(state.results)], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    setStatus("The link is copied. It works while the same indexes are served.");
  } catch {
    setStatus("The browser does not allow it; copy the address of the page.", true);
  }
}

// Wait for the pictures, so that a line appears whole; but not for long.
function loaded(elements) {
  const pictures = elements.flatMap((each) => [...each.querySelectorAll("img")]);
  const late = new Promise((resolve) => setTimeout(resolve, 1500));
  return Promise.race([Promise.allSettled(pictures.map((each) => each.decode())), late]);
}

async function askExample() {
  ask({ ...(await call(`/api/example/${state.example}`)), k: state.k }, state.query ? "push" : "replace");
}

async function main() {
  try {
    state.indexes = await call("/api/indexes");
    listen();
    await showChoices();
    const asked = questionOf(location.search);
    if (asked) ask(asked, "replace");
    else await askExample();
  } catch (error) {
    setStatus(error.message, true);
  }
}

function listen() {
  for (const radio of document.querySelectorAll("[name=how]")) {
    radio.disabled = !state.indexes.some((each) => canAnswer(each, radio.value));
    if (radio.disabled) radio.title = "None of these indexes can be searched this way";
    radio.addEventListener("change", () => ask({ how: radio.value, box: isWhole(state.box) ? CENTRE : state.box }));
  }
  $("k").addEventListener("change", () => ask({ k: neighbourCount($("k").value) }));
  $("copy").addEventListener("click", copyLink);
  $("save").addEventListener("click", saveTable);
  $("surprise").addEventListener("click", () => {
    state.example += 1;
    askExample().catch((error) => setStatus(error.message, true));
  });
  window.addEventListener("popstate", () => {
    const asked = questionOf(location.search);
    if (asked) ask(asked, "keep");
  });
  listenToQuery();
  listenToNeighbours();
  listenToFills();
}

document.addEventListener("DOMContentLoaded", main); // after all scripts
