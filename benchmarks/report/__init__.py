"""The report of a comparison: one self-contained HTML page, and its tables once more as Markdown."""

from __future__ import annotations

from pathlib import Path

from pretext.checkpoint import atomic_write


def write_report(out: Path) -> Path:
    """Write OUT/report.html and OUT/report.md from what lies in a results folder; return the page's path.

    What is missing is left out: curves without training logs, pictures without the data or the encoders.

    Raises:
        UserError: If the folder holds neither results nor failures.
    """
    from benchmarks.report.content import read_run
    from benchmarks.report.markdown import markdown
    from benchmarks.report.page import page

    run = read_run(out)
    page_path = out / "report.html"
    for path, text in ((out / "report.md", markdown(run)), (page_path, page(run))):
        with atomic_write(path) as beside:
            beside.write_text(text, encoding="utf-8")
    return page_path
