"""Ways out of the page: the files of the results folder, each row's encoder and logs, and commands to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote

from benchmarks.report.content import Run

FILES = (
    ("answer.md", "the answer of did-it-help in sentences"),
    ("results.csv", "every measured number"),
    ("results.parquet", "the same for pandas"),
    ("summary.csv", "means, intervals and tests"),
    ("report.md", "the tables as Markdown"),
    ("report.tex", "the table for a paper"),
    ("plan.json", "all settings"),
    ("environment.json", "machine and packages"),
)
"""Files of a results folder, and what they hold."""
WRITTEN = ("results.csv", "summary.csv", "report.md", "report.tex")
"""Files that are written together with the page, and so may not exist yet."""


def ways_out(run: Run, figures: Iterable[str]) -> str:
    """Return links to the files of the results folder, and a table of each row's encoder, logs and command.

    Args:
        run: The results folder.
        figures: Names of the figures that are written beside the page.
    """
    written = (*WRITTEN, "answer.md") if run.plan.get("profile") == "did-it-help" else WRITTEN
    files = "".join(
        f"<li>{_link(name)}: {about}</li>" for name, about in FILES if name in written or (run.out / name).exists()
    )
    names = ", ".join(_link(f"figures/{name}.svg", name) for name in figures)
    files += f"<li>Figures as SVG (and PNG in the same folder): {names}</li>" if names else ""
    return f"<ul>{files}</ul>{_rows(run)}"


def _rows(run: Run) -> str:
    """Return the table of rows: links to encoders and training logs by seed, and the command that repeats a cell."""
    folders = run.pretrained()
    lines = []
    for row in run.rows:
        cell = next(m.cell for m in run.measurements if m.pretext == row)
        command = shlex.join(["python", "benchmarks/run_all.py", "reproduce", cell, "--out", str(run.out)])
        seeds = folders.get(row, {})
        encoders = _by_seed(run.out, {seed: folder / "encoder.safetensors" for seed, folder in seeds.items()})
        logs = _by_seed(run.out, {seed: folder / "log.jsonl" for seed, folder in seeds.items()})
        lines.append(
            f'<tr><th scope="row">{escape(run.title(row))}</th><td class="text">{encoders}</td>'
            f'<td class="text">{logs}</td><td class="text"><code>{escape(command)}</code></td></tr>'
        )
    if not lines:
        return ""
    head = "".join(
        f'<th scope="col" class="text">{name}</th>'
        for name in ("row", "encoder, by seed", "training log, by seed", "repeat one result")
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Files of each row">'
        f'<table class="files"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        '<p class="legend">Judge an encoder on your own pictures: <code>python -m downstream linear --encoder FILE '
        "--data folder:PICTURES</code></p>"
    )


def _by_seed(out: Path, paths: dict[int, Path]) -> str:
    links = [_link(str(path.relative_to(out)), str(seed)) for seed, path in paths.items() if path.exists()]
    return " ".join(links) or "–"


def _link(path: str, text: str = "") -> str:
    address = quote(path.encode("utf-8", errors="surrogateescape"))
    return f'<a href="{address}">{escape(text or path)}</a>'
