"""The report of a comparison: one self-contained HTML page, its tables as Markdown and LaTeX, its figures as files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pretext.system.checkpoint import atomic_write

FIGURE = re.compile(r"(ranks|cost|depth-[\w=-]+|learning(-\d+)?)\.(svg|png)")
"""Names of what lies in OUT/figures."""


def digest_of_inputs(out: Path) -> str:
    """Return what stands for all that a report says of a folder: this package, and the results, failures and plan."""
    package = Path(__file__).parents[1]
    code = [(str(path.relative_to(package)), path.read_bytes()) for path in sorted(package.rglob("*.py"))]
    told = [(name, (out / name).read_bytes()) for name in ("plan.json", "environment.json") if (out / name).exists()]
    cells = [path for name in ("results", "failures") for path in sorted((out / name).glob("*.json"))]
    times = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in cells]
    return hashlib.sha256(repr((code, told, times)).encode()).hexdigest()


def write_report(out: Path) -> Path:
    """Write the report of a results folder; return the page's path.

    OUT/report.html, OUT/report.md, OUT/report.tex, and the figures once more as OUT/figures/*.svg and *.png. What
    is missing is left out: curves without training logs, pictures without the data or the encoders.

    Raises:
        UserError: If the folder holds neither results nor failures.
    """
    from benchmarks.report.content import read_run
    from benchmarks.report.figures import plots
    from benchmarks.report.latex import latex
    from benchmarks.report.markdown import markdown
    from benchmarks.report.page import page
    from benchmarks.report.plotting import Plot

    run = read_run(out)
    drawn: list[Plot] = []

    def draw() -> list[Plot]:
        drawn.extend(plots(run))
        return drawn

    page_path = out / "report.html"
    texts = {page_path: page(run, draw), out / "report.md": markdown(run), out / "report.tex": latex(run)}
    for path, text in texts.items():
        with atomic_write(path) as beside:
            beside.write_text(text, encoding="utf-8")
    for old in (out / "figures").glob("*"):
        if FIGURE.fullmatch(old.name):  # of rows and probes that are no more, perhaps
            old.unlink()
    for plot in drawn:
        plot.write(out / "figures")
    return page_path
