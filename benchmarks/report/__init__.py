"""The report of a comparison: one self-contained HTML page, its tables as Markdown, LaTeX and text, its figures.

content     everything read from a results folder: `Run`, the input of all other modules
stages      what each row gains over random weights at every stage
protocols   what each probe had: labels, steps, test items
headline    the result in a few plain sentences, for the terminal and the page
sentences   what was compared, the verdict in sentences, and its caveats
evidence    uncertainty tables: differences, share of the gap, detectable differences, mean ranks
page        the HTML page, section by section
tables      HTML tables
links       ways out of the page: files, encoders, logs, commands
markdown    report.md
latex       report.tex, a table for papers
terminal    the results table as plain text
figures     all figures; gain by stage, mean ranks, learning curves
forest      the figure of the first screen: differences from random weights by probe
pareto      score against pretraining cost, with the Pareto front
few_labels  score against the number of labels
fits        the training curves of the fitted probes
watch       what --watch has measured of each row while it trained
plotting    colours, markers, panels; figures as inline SVG and as files
neighbours  images: nearest neighbours of one query per class
grids       images: detections and segmentations
fills       images: holes filled by decoders and from the nearest training image
dense       images: dense features as colours
gallery     images: first-layer filters
images      images as HTML
style       CSS and JavaScript of the page
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pretext.system.checkpoint import atomic_write

FIGURE = re.compile(r"(ranks|cost|forest(-narrow)?|(depth|gain|labels|fit|watch)-[\w=-]+|learning(-\d+)?)\.(svg|png)")
"""Names of the files that the report writes into OUT/figures."""


def digest_of_inputs(out: Path) -> str:
    """Return a hash of everything a report depends on: this package's code, and the results, failures and plan."""
    package = Path(__file__).parents[1]
    code = [(str(path.relative_to(package)), path.read_bytes()) for path in sorted(package.rglob("*.py"))]
    about = [(name, (out / name).read_bytes()) for name in ("plan.json", "environment.json") if (out / name).exists()]
    cells = [path for name in ("results", "failures") for path in sorted((out / name).glob("*.json"))]
    times = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in cells]
    return hashlib.sha256(repr((code, about, times)).encode()).hexdigest()


def write_report(out: Path) -> Path:
    """Write OUT/report.html, report.md, report.tex, and the figures as OUT/figures/*.svg and *.png.

    Sections whose inputs are missing are left out, such as images without the data or the encoders.

    Returns:
        The path of the page.

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
            beside.write_text(text, encoding="utf-8", errors="replace")  # specs and notes may name files
    for old in (out / "figures").glob("*"):
        if FIGURE.fullmatch(old.name):  # perhaps of a row or probe that no longer exists
            old.unlink()
    for plot in drawn:
        plot.write(out / "figures")
    return page_path
