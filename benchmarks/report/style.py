"""CSS and JavaScript of the page, embedded in it."""

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #5b6470; --line: #d5dae0;
  --tint: #f4f6f8; --good: #00684c; --bad: #a84300; --link: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e4e7ea; --soft: #a2abb5;
  --line: #3a4149; --tint: #1e2327; --good: #4fc9a4; --bad: #f59b62; --link: #6cb8f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 48rem; margin: .5rem 0; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1rem 0; font-size: .92rem; }
.data { color: var(--soft); }
.data { max-width: none; }
.synthetic { display: inline-block; padding: .3rem .7rem; border-left: .3rem solid #e69f00;
  background: var(--tint); color: var(--ink); }
.verdict { max-width: none; margin: .35rem 0; }
.forest svg, .forest-narrow svg { width: 100%; height: auto; display: block; }
.forest-narrow { display: none; }
@media (max-width: 44rem) { .forest { display: none; } .forest-narrow { display: block; } }
.small, figcaption, .legend { color: var(--soft); font-size: .88rem; }
.scroll { overflow: auto; max-width: 100%; margin: .6rem 0; } .tall { max-height: 92vh; }
.scroll:focus-visible, button:focus-visible, summary:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: .35rem .38rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, .text { text-align: left; }
.ranged td { white-space: normal; }
thead th { vertical-align: bottom; font-weight: 600; position: sticky; top: 0; z-index: 1; background: var(--paper); }
thead th:first-child { left: 0; z-index: 2; }
tr.reference > * { color: var(--soft); }
table:not(.sorted) tr.ruled > * { border-top: 2px solid var(--soft); }
.filter { font: inherit; font-size: .88rem; padding: .2rem .4rem; margin-top: .4rem; max-width: 100%; color: inherit;
  background: var(--tint); border: 1px solid var(--line); }
thead small { display: block; color: var(--soft); font-weight: 400; }
tbody th { font-weight: 500; white-space: normal; max-width: 10rem; overflow-wrap: break-word;
  position: sticky; left: 0; background: var(--paper); }
tbody tr:hover > * { background: var(--tint); }
th button { all: unset; cursor: pointer; text-align: inherit; }
.sortable th button span::after { content: " ↕"; color: var(--soft); font-weight: 400; }
.sortable th[aria-sort=ascending] button span::after { content: " ▴"; color: inherit; }
.sortable th[aria-sort=descending] button span::after { content: " ▾"; color: inherit; }
.up { color: var(--link); } .down { color: var(--bad); } .half { color: var(--soft); }
details { margin: .8rem 0; } summary { cursor: pointer; padding: .3rem 0; }
pre { background: var(--tint); padding: .7rem; font-size: .82rem; margin: .4rem 0; overflow-x: auto;
  overflow-wrap: normal; }
dl { display: grid; grid-template-columns: minmax(6rem, 12rem) 1fr; gap: .2rem 1rem; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; font-family: ui-monospace, monospace; font-size: .88rem; }
figure { margin: 0; min-width: 0; } figcaption { margin-top: .3rem; }
.plots { columns: 22rem; column-gap: 1.6rem; } .plots figure { break-inside: avoid; padding-bottom: 1.6rem; }
.plots svg { width: 100%; height: auto; max-width: 36rem; display: block; }
.filters { display: flex; flex-wrap: wrap; gap: 1.2rem; }
img { display: block; }
.files code { white-space: normal; overflow-wrap: anywhere; }
.query { display: flex; gap: 1rem; align-items: flex-start; margin: .6rem 0 1.2rem; }
.near th, .near td { padding: .15rem .3rem; border: 0; } .near th { text-align: left; }
.near th small { display: block; color: var(--soft); font-weight: 400; }
.near figcaption { margin: .1rem 0 0; font-size: .72rem; text-align: center; }
.hit img { border: 4px solid var(--good); } .miss img { border: 4px dashed var(--bad); }
.fills td { vertical-align: top; }
.fills td small { color: var(--soft); font-size: .72rem; }
.fills td, .fills th { padding: .15rem; border: 0; text-align: center; }
.fills thead th { white-space: normal; overflow-wrap: anywhere; font-size: .8rem; font-weight: 500; max-width: 96px; }
.fills img { width: 96px; height: 96px; } .grid img { width: 144px; height: 144px; }
.grid tbody th { text-align: left; white-space: normal; max-width: 9rem; }
.dense tbody th { text-align: left; max-width: 9rem; white-space: normal; }
.dense th small { display: block; color: var(--soft); font-weight: 400; }
@media (max-width: 30rem) {
  tbody th { white-space: normal; min-width: 7.5rem; max-width: 8.5rem; overflow-wrap: anywhere; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  .query { flex-direction: column; }
  .fills img { width: 76px; height: 76px; } .fills thead th { max-width: 76px; font-size: .68rem; } }
@media print { html { font-size: 9pt; } body { max-width: none; padding: 0; } nav { display: none; }
  :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #fff;
    --good: #00684c; --bad: #a84300; }
  .scroll { overflow: visible; } .tall { max-height: none; } .screen, .filter { display: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  table { font-size: 7pt; } th, td { padding: .15rem .25rem; } th, .text { white-space: normal; }
  tbody th, thead th { position: static; } th button { display: contents; } .plots { columns: 3; }
  .sortable th button span::after { content: none; } .plots figure { padding-bottom: .6rem; }
  .forest { display: block; } .forest-narrow { display: none; } .query { display: inline-flex; width: 49%; }
  .near img { width: 1.1cm; height: auto; } .query > figure img { width: 2cm; height: auto; }
  .hit img, .miss img { border-width: 2px; } .fills.grid img { max-width: 1.6cm !important; }
  .fills:not(.grid) tbody tr:nth-child(n+5) { display: none; }
  h2 + p, summary { break-after: avoid; } p { break-inside: avoid; }
  .fills table { width: 100%; table-layout: fixed; }
  .fills img { width: 100%; height: auto; max-width: 2.2cm; margin: auto; } }
"""

SCRIPT = """
for (const button of document.querySelectorAll('table.sortable th button')) button.onclick = () => {
  const head = button.closest('th'), table = head.closest('table'), body = table.tBodies[0];
  const up = head.getAttribute('aria-sort') === 'descending';
  for (const other of table.querySelectorAll('th[aria-sort]')) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const key = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const order = (a, b) => a === '' || b === '' ? (a === '') - (b === '') || 0
    : (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
  body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
  table.classList.add('sorted');
};
for (const table of document.querySelectorAll('table.sortable')) if (table.tBodies[0].rows.length > 20) {
  const field = document.createElement('input');
  field.type = 'search';
  field.className = 'filter';
  field.placeholder = 'Show rows with …';
  field.setAttribute('aria-label', 'Show rows of the table that contain these words');
  field.oninput = () => {
    const words = field.value.toLowerCase().split(/\\s+/);
    for (const row of table.tBodies[0].rows)
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  };
  table.closest('.scroll').before(field);
}
let unfolded = [];
addEventListener('beforeprint', () => {
  unfolded = [...document.querySelectorAll('details:not([open]):not(.screen)')];
  for (const one of unfolded) one.open = true;
});
addEventListener('afterprint', () => { for (const one of unfolded) one.open = false; });
"""
