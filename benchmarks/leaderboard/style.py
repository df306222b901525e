"""CSS and JavaScript that the leaderboard needs beside those of the report."""

CSS = """
body { max-width: 100rem; }
.choices { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: 1rem 0 .4rem; align-items: end; }
.choices label { display: grid; gap: .1rem; color: var(--soft); font-size: .85rem; min-width: 0; max-width: 100%; }
.choices select, .choices input, .choices button { font: inherit; font-size: .92rem; padding: .25rem .4rem;
  color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: .2rem;
  width: 15rem; max-width: 100%; text-overflow: ellipsis; }
.choices button { width: auto; cursor: pointer; }
.choices select:focus-visible, .choices input:focus-visible { outline: 2px solid var(--link); }
#rows :is(td, tbody th) small { display: block; color: var(--soft); }
.spec { font-size: .8rem; white-space: normal; min-width: 10rem;
  max-width: 16rem; overflow-wrap: anywhere; text-align: left; }
.remarks { white-space: normal; min-width: 8rem; text-align: left; }
.remarks .doubt { color: var(--bad); }
.record table { margin: .4rem 0; }
.record:target { outline: 2px solid var(--link); outline-offset: .3rem; }
[hidden] { display: none; }
@media (max-width: 30rem) { .choices { gap: .4rem .8rem; } .choices label { width: calc(50% - .4rem); }
  .choices select, .choices input { width: 100%; } }
@media print { .choices { display: none; } }
"""

SCRIPT = """
document.querySelector('.filter')?.remove();  // the report's filter of long tables: this page has its own
const choices = [...document.querySelectorAll('.choices select')], words = document.querySelector('.choices input');
const lines = [...document.querySelectorAll('#rows tbody tr')], count = document.querySelector('#count');
const choose = () => {
  let shown = 0;
  for (const line of lines) {
    const fits = choices.every(one => one.value === '' || line.dataset[one.name] === one.value)
      && line.cells[0].textContent.toLowerCase().includes(words.value.trim().toLowerCase());
    line.hidden = document.getElementById(line.dataset.record).hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${lines.length} rows`;
};
const open = () => {
  const record = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (record && record.matches('details')) { record.open = true; record.scrollIntoView(); }
};
for (const one of [...choices, words]) one.addEventListener('input', choose);
document.querySelector('.choices').addEventListener('reset', () => setTimeout(choose));
document.querySelector('.choices').addEventListener('submit', event => event.preventDefault());
addEventListener('hashchange', open);
choose();
open();
"""
